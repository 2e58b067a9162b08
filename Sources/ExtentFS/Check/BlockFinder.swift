internal import Extents

/// Says which volumes lead to some blocks: what a check asks when something is wrong with them.
///
/// It reads all trees of extents, each node once. What cannot be read it leaves out: the check has said that already.
final class BlockFinder {
  /// A place that leads to wanted blocks.
  struct Place {
    /// The volume, the nodes, and the logical block.
    var path: String
    var isData: Bool
  }

  /// The first few places for each wanted range, in the order of these.
  private(set) var places: [[Place]]
  private let nodes: NodeCache
  private let wanted: [(index: Int, blocks: Range<UInt64>)]
  private var seen: Set<UInt64> = []
  private var trail: [UInt64] = []
  private var label = ""

  /// How many places are told for each range.
  private static var placeCountMax: Int { 4 }

  /// Looks for what leads to any block of `wanted`, which do not overlap.
  init(_ nodes: NodeCache, _ wanted: [Range<UInt64>]) {
    self.nodes = nodes
    self.wanted = wanted.enumerated().map { ($0.offset, $0.element) }.sorted { $0.1.lowerBound < $1.1.lowerBound }
    places = wanted.map { _ in [] }
  }

  /// - Throws: where the device cannot be read.
  func look(in inodes: [UInt64: InodeRecord]) throws(ExtentFSError) {
    for (inode, record) in inodes.sorted(by: { $0.key < $1.key }) {
      (label, trail) = (record.label(inode), [])
      for extent in record.inlineExtents { meet(extent) }
      if !record.extents.isEmpty { try look(at: record.extents.pointer, level: record.extents.height - 1) }
    }
  }

  private func look(at pointer: BlockPointer, level: Int) throws(ExtentFSError) {
    guard pointer.block < .max else { return }
    meet(pointer.block..<pointer.block + 1, nil)
    guard seen.insert(pointer.block).inserted else { return }
    let node: Node
    do throws(ExtentFSError) {
      node = try nodes.node(pointer, kind: .extents, level: level, owner: 0)
    } catch {
      guard error.code == .damaged else { throw error }
      return
    }
    trail.append(pointer.block)
    defer { trail.removeLast() }
    for index in 0..<node.count {
      if level == 0 { meet(node.extent(at: index)) } else { try look(at: node.child(at: index), level: level - 1) }
    }
  }

  private func meet(_ extent: ExtentRecord) {
    guard let block = extent.target.physicalBlock else { return }
    meet(block..<block + UInt64(extent.length), extent.logical)
  }

  private func meet(_ blocks: Range<UInt64>, _ logical: UInt64?) {
    var (low, high) = (0, wanted.count)
    while low < high {
      let middle = (low + high) / 2
      if wanted[middle].blocks.upperBound <= blocks.lowerBound { low = middle + 1 } else { high = middle }
    }
    while low < wanted.count, wanted[low].blocks.lowerBound < blocks.upperBound {
      let (index, range) = wanted[low]
      low += 1
      guard places[index].count < Self.placeCountMax else { continue }
      var path = trail.reduce(into: label) { $0 += " > block \($1)" }
      if let logical {
        path += ", logical block \(logical + range.lowerBound.saturatingSubtract(blocks.lowerBound))"
      } else {
        path += " > node at block \(blocks.lowerBound)"
      }
      places[index].append(Place(path: path, isData: logical != nil))
    }
  }
}
