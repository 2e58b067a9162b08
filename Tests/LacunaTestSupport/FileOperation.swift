package import BlockStores

/// One operation on a file, for scripts.
package enum FileOperation: Sendable, CustomStringConvertible {
  case write(Range<Int>)
  case zero(Range<Int>, keepsSpace: Bool)
  case discard(Range<Int>)
  case truncate(Int)
  case remove

  package func apply(to file: BlockFile<some FileBacking>) throws(StoreError) {
    switch self {
    case .write(let range):
      let result = Self.bytes(for: range).withUnsafeBytes { bytes in
        Result { () throws(StoreError) in try file.write(bytes, at: UInt64(range.lowerBound)) }
      }
      try result.get()
    case .zero(let range, let keepsSpace):
      try file.zero(in: UInt64(range.lowerBound)..<UInt64(range.upperBound), keepsSpace: keepsSpace)
    case .discard(let range): try file.discard(in: UInt64(range.lowerBound)..<UInt64(range.upperBound))
    case .truncate(let byteCount): try file.truncate(to: UInt64(byteCount))
    case .remove: try file.remove()
    }
  }

  package func apply(to model: inout ReferenceFile) {
    switch self {
    case .write(let range): Self.bytes(for: range).withUnsafeBytes { model.write($0, at: range.lowerBound) }
    case .zero(let range, let keepsSpace): model.zero(range, keepsSpace: keepsSpace)
    case .discard(let range): model.discard(range)
    case .truncate(let byteCount): model.truncate(to: byteCount)
    case .remove: model.truncate(to: 0)
    }
  }

  /// What a write to `range` writes.
  package static func bytes(for range: Range<Int>) -> [UInt8] {
    pattern(range.count, seed: range.lowerBound &* 1_000_003 &+ range.upperBound)
  }

  package var description: String {
    switch self {
    case .write(let range): "write \(range)"
    case .zero(let range, let keepsSpace): "zero \(range)\(keepsSpace ? ", keeping space" : "")"
    case .discard(let range): "discard \(range)"
    case .truncate(let byteCount): "truncate to \(byteCount)"
    case .remove: "remove"
    }
  }
}
