import Bytes
import Devices
import ExtentFS
import LacunaTestSupport

/// A short row of operations on a tiny store: all such rows together are tried exhaustively.
struct CrashSequence: Sendable {
  /// What is done, always to the same places, so that an operation also meets what an earlier one left there.
  enum Operation: String, CaseIterable, Sendable {
    case writeNew = "new"
    case overwrite = "over"
    case writePart = "part"
    case trim
    case zero
    case reserve
    case writeDurably = "fua"
    case flush
    case checkpoint
    case reopen
  }

  let operations: [Operation]

  /// All rows of one to `longest` operations.
  static func all(upTo longest: Int) -> [CrashSequence] {
    var rows: [[Operation]] = [[]]
    var all: [CrashSequence] = []
    for _ in 0..<longest {
      rows = rows.flatMap { row in Operation.allCases.map { row + [$0] } }
      all += rows.map(CrashSequence.init)
    }
    return all
  }

  var name: String { "sequence-" + operations.map(\.rawValue).joined(separator: "-") }

  private var shape: CrashShape {
    CrashShape(
      name: name, stepCount: operations.count + 1, unit: 512, limitByteCount: 400 << 10, diskByteCount: 12 * 1024)
  }

  /// First come blocks that the tree maps, and some that the journal maps over them, all durable; then the operations.
  var scenario: CrashScenario<CrashStore, CrashLedgers, CrashExpectation> {
    let operations = operations
    var scenario = CrashScenario.engine(
      shape,
      step: { store, ledgers, index, _ in
        if index > 0 { return try store.run(operations[index - 1], ledgers) }
        try store.write(0..<12, ledgers)
        try store.engine.checkpoint()
        try store.write(4..<8, ledgers)
        try store.run(.flush, ledgers)
      })
    scenario.setupStepCount = 1
    return scenario
  }
}

extension CrashStore {
  fileprivate mutating func run(_ operation: CrashSequence.Operation, _ ledgers: CrashLedgers) throws {
    switch operation {
    case .writeNew: try write(16..<20, ledgers)
    case .overwrite: try write(2..<8, ledgers)
    case .writePart: try write(3..<6, ledgers)
    case .writeDurably: try write(4..<6, ledgers, durably: true)
    case .trim: try zero(0..<6, ledgers) { try $0.discard(in: $1) }
    case .zero: try zero(3..<9, ledgers) { try $0.zero(in: $1, keepsSpace: false) }
    case .reserve: try zero(6..<18, ledgers) { try $0.zero(in: $1, keepsSpace: true) }
    case .flush:
      let flush = ledgers.disks[0].willFlush()
      try volumes[0].flush()
      ledgers.disks[0].didFinish(flush)
    case .checkpoint: try engine.checkpoint()
    case .reopen: try reopen()
    }
  }

  private func zero(
    _ units: Range<UInt64>, _ ledgers: CrashLedgers, _ body: (DiskVolume, Range<UInt64>) throws -> Void
  ) throws {
    let change = ledgers.disks[0].willZero(units)
    let unit = UInt64(shape.unit)
    try body(volumes[0], units.lowerBound * unit..<units.upperBound * unit)
    ledgers.disks[0].didFinish(change)
  }
}
