internal import Bytes
internal import Extents

/// The writes that recovery leaves out, since their data did not reach the device: how many, and of which volumes.
struct DroppedWrites {
  private struct Count {
    var writes: UInt64 = 0
    var blocks: UInt64 = 0
  }

  private var counts: [UInt64: Count] = [:]

  /// The most volumes that are named.
  private static var namedMax: Int { 8 }

  mutating func note(_ inode: UInt64, blockCount: UInt64) {
    counts[inode, default: Count()].writes += 1
    counts[inode, default: Count()].blocks += blockCount
  }

  var writeCount: UInt64 { counts.values.reduce(0) { $0 + $1.writes } }

  /// All of it in one line, whatever there is of it; nil where there is nothing.
  ///
  /// - Parameter name: the name of an inode, for people.
  func text(_ blockSize: BlockSize, name: (UInt64) -> String) -> String? {
    guard !counts.isEmpty else { return nil }
    let writes = writeCount
    let blocks = counts.values.reduce(0) { $0 + $1.blocks }
    // Those that lost most come first.
    let order = counts.sorted { ($1.value.writes, $0.key) < ($0.value.writes, $1.key) }
    var parts = order.prefix(Self.namedMax).map { "\($0.value.writes) of \(name($0.key))" }
    if order.count > Self.namedMax {
      let rest = order.dropFirst(Self.namedMax)
      parts.append("\(rest.reduce(0) { $0 + $1.value.writes }) of \(rest.count) more")
    }
    return
      "\(writes) \(writes == 1 ? "write" : "writes") (\(blockSize.offset(of: blocks)) bytes) that no flush had covered "
      + "\(writes == 1 ? "is" : "are") left out, since the data did not reach the device: "
      + parts.joined(separator: ", ")
  }
}
