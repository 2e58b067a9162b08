import NBDTestSupport
import Testing

/// What the plugin can serve a disk from, and what each promises of block status.
enum Engine: String, CaseIterable, Sendable, CustomTestStringConvertible {
  /// Extents: gaps are holes, and a range can be reserved as zeroes.
  case extent
  /// A chain of blocks: block 0 is a hole.
  case chain
  /// Bytes: the interface has no holes.
  case bytes
  /// A store in a file.
  case disk

  var testDescription: String { "engine=\(rawValue)" }

  /// The engines whose interface can leave a hole.
  static let withHoles: [Engine] = [.extent, .chain, .disk]

  /// The engines in memory: the values of the parameter `engine`.
  static let inMemory: [Engine] = [.extent, .chain, .bytes]

  /// Whether block status must tell holes from data, block by block.
  var tracksHoles: Bool { self != .bytes }

  /// What block status says of whole blocks that were zeroed with no-hole, where `tracksHoles`.
  var stateAfterZeroWithoutHole: AllocationState { self == .chain ? .data : .zero }
}
