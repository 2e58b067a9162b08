package import BlockStores

/// A store of blocks beneath files, with what tests need to know of it.
package protocol FileStore: Sendable {
  associatedtype Backing: FileBacking

  var backing: Backing { get }

  /// How many blocks the files can have together.
  var capacity: UInt64 { get }

  /// How many blocks are free.
  func freeBlockCount() throws -> UInt64

  /// The store as it is found when it is opened again.
  func reopened() throws -> Self

  /// A clone of `file`; nil where the store cannot share blocks.
  func clone(_ file: BlockFile<Backing>, to inode: Inode) throws -> BlockFile<Backing>?

  /// The store's own count of references to a block that is mapped.
  func referenceCount(of block: UInt64) throws -> UInt64
}

extension FileStore {
  package func reopened() throws -> Self { self }
  package func clone(_ file: BlockFile<Backing>, to inode: Inode) throws -> BlockFile<Backing>? { nil }
  package func referenceCount(of block: UInt64) throws -> UInt64 { 1 }

  /// Checks that every block is either free or mapped, as often as the store thinks, by the files `inodes`.
  ///
  /// - Parameter lost: how many blocks may be neither, or have more references than mappings, since a call that should have
  ///   freed them failed.
  package func checkSpace(of inodes: some Sequence<Inode>, lost: ClosedRange<UInt64> = 0...0) throws {
    var references: [UInt64: UInt64] = [:]
    for inode in inodes {
      try backing.map(of: inode).forEachPiece(in: 0..<1 << 54) { piece, target in
        guard let first = target?.physicalBlock else { return true }
        for block in first..<first + (piece.upperBound - piece.lowerBound) { references[block, default: 0] += 1 }
        return true
      }
    }
    for (block, count) in references {
      let found = try referenceCount(of: block)
      let isRight = found == count || found > count && lost.upperBound > 0
      try check(isRight, "block \(block) is mapped \(count) times and has \(found) references")
    }
    let free = try freeBlockCount()
    let used = UInt64(references.count) + free
    try check(
      used <= capacity && lost.contains(capacity - used),
      "\(references.count) blocks are mapped and \(free) free, of \(capacity)")
  }
}

/// A store in which each block belongs to one file.
package struct PlainFileStore<Backing: FileBacking>: FileStore {
  package let backing: Backing
  package let capacity: UInt64
  private let freeCount: @Sendable () -> UInt64
  private let reopen: (@Sendable () throws -> Self)?

  package init(
    _ backing: Backing, capacity: UInt64, freeCount: @escaping @Sendable () -> UInt64,
    reopen: (@Sendable () throws -> Self)? = nil
  ) {
    (self.backing, self.capacity, self.freeCount, self.reopen) = (backing, capacity, freeCount, reopen)
  }

  package func freeBlockCount() throws -> UInt64 { freeCount() }
  package func reopened() throws -> Self { try reopen?() ?? self }
}

/// A store whose files can share blocks.
package struct COWFileStore<Store: COWStore>: FileStore {
  package let backing: ExtentBacking<Store>
  package let capacity: UInt64
  private let store: Store
  private let freeCount: @Sendable () -> UInt64

  package init(_ store: Store, capacity: UInt64, freeCount: @escaping @Sendable () -> UInt64) {
    (self.store, self.capacity, self.freeCount) = (store, capacity, freeCount)
    backing = ExtentBacking(store)
  }

  package func freeBlockCount() throws -> UInt64 { freeCount() }

  package func clone(
    _ file: ExtentFile<Store>, to inode: Inode
  ) throws -> ExtentFile<Store>? {
    try file.clone(to: inode)
  }

  package func referenceCount(of block: UInt64) throws -> UInt64 { try store.referenceCount(of: block) }
}
