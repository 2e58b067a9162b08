package import BlockStores
import Testing

/// What every `BlockChainStore` promises.
package enum BlockChainStoreConformance {
  package typealias Kind = StoreKind<any BlockChainStore>

  package static let promises: [Promise<Kind>] = [
    Promise("every block is handed out once, and block 0 never") { kind in
      let store = try kind.make(50)
      let blocks = try allocateAll(store)
      #expect(blocks.count == 50)
      #expect(Set(blocks).count == 50)
      #expect(!blocks.contains(0))
      expectError(.outOfSpace) { _ = try store.allocateBlock() }
    },

    Promise("a freed block can be allocated again") { kind in
      let store = try kind.make(50)
      let blocks = try allocateAll(store)
      for block in blocks.shuffled() {
        try store.freeBlock(block)
        #expect(try store.allocateBlock() == block)
      }
      for block in blocks.shuffled() { try store.freeBlock(block) }
      #expect(try Set(allocateAll(store)) == Set(blocks))
    },

    Promise("freeing a block that is free is refused") { kind in
      let store = try kind.make(50)
      let block = try store.allocateBlock()
      try store.freeBlock(block)
      expectError(.notAllocated) { try store.freeBlock(block) }
      #expect(try allocateAll(store).count == 50)
    },

    Promise("freeing a block that the store does not have is refused") { kind in
      let store = try kind.make(50)
      for block in [0, 51, 52, 1000, 1 << 54, UInt64.max - 1, UInt64.max] {
        expectError(.notAllocated) { try store.freeBlock(block) }
      }
      #expect(try allocateAll(store).count == 50)
    },

    Promise("each block keeps its own bytes") { kind in
      let store = try kind.make(50)
      let size = store.blockSize.byteCount
      let blocks = try (0..<50).map { _ in try store.allocateBlock() }
      for block in blocks { try store.writeBlock(block, pattern(size, seed: Int(block))) }
      for block in blocks { #expect(try store.bytes(of: block, count: size) == pattern(size, seed: Int(block))) }
      // Nor do the others change when one is freed.
      for block in blocks[..<25] { try store.freeBlock(block) }
      for block in blocks[25...] { #expect(try store.bytes(of: block, count: size) == pattern(size, seed: Int(block))) }
    },

    Promise("a part of a block is read and written alone") { kind in
      let store = try kind.make(50)
      let size = store.blockSize.byteCount
      let block = try store.allocateBlock()
      var bytes = pattern(size, seed: 1)
      try store.writeBlock(block, bytes)
      for part in [0..<1, 5..<9, size - 1..<size, 0..<size, 7..<7] {
        let new = pattern(part.count, seed: part.lowerBound)
        try store.writeBlock(block, new, skip: part.lowerBound)
        bytes.replaceSubrange(part, with: new)
        #expect(try store.bytes(of: block, skip: part.lowerBound, count: part.count) == new)
        #expect(try store.bytes(of: block, count: size) == bytes)
      }
    },

    Promise("a chain is what was set last, each inode's own") { kind in
      let store = try kind.make(50)
      #expect(try store.chain(of: .one).byteCount == 0)
      var chain = BlockChain()
      chain.byteCount = 1234
      chain.replace(1..<3, with: .physical(5))
      try store.setChain(chain, of: .one, changed: 1..<3)
      // The store's chain does not follow this one.
      chain.replace(0..<1, with: .physical(9))
      let kept = try store.chain(of: .one)
      #expect(kept.byteCount == 1234)
      #expect((0..<5).map { kept[$0] } == [0, 5, 6, 0, 0])
      #expect(try store.chain(of: .two)[1] == 0)
      try store.setChain(chain, of: .two, changed: 0..<3)
      try store.removeChain(of: .one)
      #expect(try store.chain(of: .one).byteCount == 0)
      #expect(try store.chain(of: .one)[1] == 0)
      #expect(try store.chain(of: .two)[0] == 9)
      try store.removeChain(of: .one)
      try store.sync()
    },
  ]

  /// Takes what there is.
  private static func allocateAll(_ store: any BlockChainStore) throws -> [UInt64] {
    var blocks: [UInt64] = []
    while true {
      do {
        blocks.append(try store.allocateBlock())
      } catch {
        guard error.code == .outOfSpace else { throw error }
        return blocks
      }
    }
  }
}
