import CLibNBD

/// Flags of a request.
package struct CommandFlags: OptionSet, Hashable, Sendable, CustomStringConvertible {
  package let rawValue: UInt32
  package init(rawValue: UInt32) { self.rawValue = rawValue }

  /// The answer comes only when the change is durable.
  package static let fua = CommandFlags(rawValue: UInt32(LIBNBD_CMD_FLAG_FUA))
  /// The zeroed range must stay allocated; without it a zero request may punch a hole (may-trim).
  package static let noHole = CommandFlags(rawValue: UInt32(LIBNBD_CMD_FLAG_NO_HOLE))
  /// Block status answers with one extent at most, clipped to the range.
  package static let requestOne = CommandFlags(rawValue: UInt32(LIBNBD_CMD_FLAG_REQ_ONE))
  /// Zero at once or fail with ENOTSUP.
  package static let fastZero = CommandFlags(rawValue: UInt32(LIBNBD_CMD_FLAG_FAST_ZERO))

  package var description: String {
    var names: [String] = []
    if contains(.fua) { names.append("fua") }
    if contains(.noHole) { names.append("no-hole") }
    if contains(.requestOne) { names.append("req-one") }
    if contains(.fastZero) { names.append("fast-zero") }
    return names.isEmpty ? "no flags" : names.joined(separator: "+")
  }
}

/// What `base:allocation` says of a range.
package struct AllocationState: OptionSet, Hashable, Sendable, CustomStringConvertible {
  package let rawValue: UInt32
  package init(rawValue: UInt32) { self.rawValue = rawValue }

  /// Nothing is stored.
  package static let hole = AllocationState(rawValue: 1)
  /// Reads as zeroes.
  package static let zero = AllocationState(rawValue: 2)
  /// Stored, content unknown.
  package static let data: AllocationState = []

  package var description: String {
    switch self {
    case .data: "data"
    case .hole: "hole"
    case .zero: "allocated zero"
    case [.hole, .zero]: "hole, zero"
    default: "state \(rawValue)"
    }
  }
}

/// One run of a block status answer.
package struct AllocationExtent: Equatable, Sendable, CustomStringConvertible {
  package var offset: UInt64
  package var byteCount: UInt64
  package var state: AllocationState

  package init(offset: UInt64, byteCount: UInt64, state: AllocationState) {
    self.offset = offset
    self.byteCount = byteCount
    self.state = state
  }

  /// The first byte after the run.
  package var end: UInt64 { offset + byteCount }
  package var description: String { "\(offset)+\(byteCount) \(state)" }
}

/// One export as a server lists it.
package struct ListedExport: Equatable, Sendable {
  package var name: String
  package var description: String
}

/// The sizes that a server asks its clients to respect, in bytes; 0 where it says nothing.
package struct BlockSizes: Equatable, Sendable {
  package var minimum: Int64
  package var preferred: Int64
  package var maximum: Int64
}
