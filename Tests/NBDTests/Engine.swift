import NBDTestSupport
import Testing

/// The store interfaces that the plugin can serve from memory, and what each promises of block status.
enum Engine: String, CaseIterable, Sendable, CustomTestStringConvertible {
  /// Extents: gaps are holes, and a range can be reserved as zeroes.
  case extent
  /// A chain of blocks: block 0 is a hole.
  case chain
  /// Bytes: the interface has no holes.
  case bytes

  var testDescription: String { "engine=\(rawValue)" }

  /// The engines whose interface can leave a hole.
  static let withHoles: [Engine] = [.extent, .chain]

  /// Whether block status must tell holes from data, block by block.
  var tracksHoles: Bool { self != .bytes }

  /// What block status says of whole blocks that were zeroed with no-hole, where `tracksHoles`.
  var stateAfterZeroWithoutHole: AllocationState { self == .extent ? .zero : .data }
}
