import Lacuna
import LacunaTestSupport

extension FuzzTargets {
  /// A store to ask: one in memory, which answers most calls with an error, so that inputs do not depend on each other.
  private static let store: Store = {
    var options = StoreOptions()
    options.memoryByteCount = 1 << 20
    do { return try Store(options) } catch { fatalError("a disk in memory cannot be made: \(error)") }
  }()

  /// Lines to a control server: each answer is one line of JSON-RPC, and no larger than what was asked for explains.
  static func control(_ bytes: [UInt8]) throws {
    for line in bytes.split(separator: UInt8(ascii: "\n"), omittingEmptySubsequences: false) {
      for answer in ControlLine.answers(to: Array(line), from: store) {
        guard answer.starts(with: Array("{".utf8)), answer.suffix(2) == Array("}\n".utf8)[...],
          answer.firstIndex(of: UInt8(ascii: "\n")) == answer.count - 1, answer.count < 2000 + 6 * line.count
        else { throw CheckFailure("a bad answer: \(String(decoding: answer, as: UTF8.self))") }
      }
    }
  }
}
