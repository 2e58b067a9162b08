import Bytes
import Devices
import Extents
import LacunaTestSupport

@testable import ExtentFS

/// A device, a cache and the blocks in use: what a checkpoint has, small enough that every merge is checked whole.
final class TreeTestStore: TreeWriter {
  let device: MemoryDevice
  let cache: NodeCache
  var generation: UInt64 = 1

  /// Blocks with a node that a tree may refer to.
  private(set) var used: Set<UInt64> = []
  private var free: [UInt64] = []
  private var nextBlock: UInt64 = 1

  // What the running merge did.
  private(set) var allocated: Set<UInt64> = []
  private(set) var written: [UInt64] = []
  private(set) var given: [UInt64] = []
  private(set) var replacedRuns: [PhysicalRun] = []
  /// Blocks whose nodes have more than one reference.
  var shared: Set<UInt64> = []
  private(set) var retained: [UInt64] = []
  /// After how many allocations the next one fails; nil for never.
  var allocationsLeft: Int?

  init(blockByteCount: Int = 1024, cacheByteLimit: Int = 1 << 20, blockCount: Int = 60_000) throws {
    device = try MemoryDevice(byteCount: UInt64(blockCount * blockByteCount))
    guard let blockSize = BlockSize(byteCount: blockByteCount) else { throw CheckFailure("the block size") }
    cache = NodeCache(device: device, blockSize: blockSize, byteLimit: cacheByteLimit)
  }

  func allocateBlock() throws(ExtentFSError) -> UInt64 {
    if let left = allocationsLeft {
      if left == 0 { throw ExtentFSError(.outOfSpace, "the test has no more blocks") }
      allocationsLeft = left - 1
    }
    var block = nextBlock
    if let reused = free.popLast() { block = reused } else { nextBlock += 1 }
    allocated.insert(block)
    return block
  }

  func write(_ node: Node) throws(ExtentFSError) {
    written.append(node.pointer.block)
    do throws(DeviceError) {
      try node.withBytes { bytes throws(DeviceError) in
        try device.write(bytes, at: cache.blockSize.offset(of: node.pointer.block))
      }
    } catch { throw ExtentFSError(error) }
  }

  func freeNode(_ block: UInt64) throws(ExtentFSError) { given.append(block) }
  func freeData(_ run: PhysicalRun) throws(ExtentFSError) { replacedRuns.append(run) }

  func isShared(_ block: UInt64) throws(ExtentFSError) -> Bool { shared.contains(block) }
  func retainChildren(of node: Node) throws(ExtentFSError) {
    if given.contains(node.pointer.block) { throw ExtentFSError(.invalidArgument, "retained after it was given up") }
    retained.append(node.pointer.block)
    if node.level > 0 { for index in 0..<node.count { shared.insert(node.child(at: index).block) } }
  }

  /// Runs one merge, and holds what it said against the blocks in use.
  func merge<Result>(_ body: (TreeMerge<TreeTestStore>) throws -> Result) throws -> Result {
    (allocated, written, given, replacedRuns, retained) = ([], [], [], [], [])
    generation += 1
    let result: Result
    do {
      result = try body(TreeMerge(cache: cache, writer: self))
    } catch {
      free += allocated
      throw error
    }
    try check(Set(written).count == written.count, "a block was written twice")
    try check(Set(written) == allocated, "blocks were allocated and not written")
    try check(Set(given).count == given.count, "a block was given up twice")
    try check(used.isSuperset(of: given), "a block was given up that no tree had")
    used.formUnion(written)
    // A shared node stays with whoever else refers to it.
    let gone = Set(given).subtracting(shared)
    used.subtract(gone)
    free += gone
    return result
  }

  /// Reads the whole tree, and holds its structure against the invariants of `TreeMerge`.
  ///
  /// Returns the leaves and all blocks of the tree.
  func walk(
    _ root: TreeRoot, _ kind: NodeKind, owner: UInt64 = 0, throughCache: Bool = true
  ) throws -> (leaves: [Node], blocks: Set<UInt64>) {
    var (leaves, blocks): ([Node], Set<UInt64>) = ([], [])
    guard !root.isEmpty else { return (leaves, blocks) }
    let cache = throughCache ? self.cache : NodeCache(device: device, blockSize: self.cache.blockSize, byteLimit: 0)
    func visit(_ node: Node, upper: UInt64?, isRoot: Bool) throws {
      let layout = NodeLayout(kind, level: node.level, blockByteCount: cache.blockSize.byteCount)
      try check(blocks.insert(node.pointer.block).inserted, "block \(node.pointer.block) is in the tree twice")
      try check(isRoot || node.count >= layout.minimum, "a node of level \(node.level) has \(node.count) entries")
      guard node.level > 0 else {
        leaves.append(node)
        return
      }
      try check(!isRoot || node.count > 1, "the root has one child")
      for index in 0..<node.count {
        let (child, upper) = try cache.child(of: node, at: index, upper: upper)
        try visit(child, upper: upper, isRoot: false)
      }
    }
    try visit(cache.root(root, kind: kind, owner: owner), upper: nil, isRoot: true)
    return (leaves, blocks)
  }
}

extension NodeCache {
  func reader(_ root: TreeRoot, _ kind: NodeKind, owner: UInt64 = 0) -> TreeReader {
    TreeReader(cache: self, root: root, kind: kind, owner: owner)
  }
}
