import Devices
import ExtentFS
import Foundation
import LacunaTestSupport
import SystemPackage

/// A directory that goes with its contents when `body` returns.
func withTestDirectory<Result>(_ body: (String) throws -> Result) throws -> Result {
  let path = FileManager.default.temporaryDirectory.appendingPathComponent("lacuna-\(UUID().uuidString)").path
  try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: false)
  defer { try? FileManager.default.removeItem(atPath: path) }
  return try body(path)
}

/// Where the tests of this target are.
let testsDirectory = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()

/// What a program said, and how it ended.
struct ProgramResult {
  var status: Int32
  var output: String
}

/// Runs the program `arguments` and waits for it; what it prints goes into the result, errors too.
func run(_ arguments: [String]) throws -> ProgramResult {
  let process = Process()
  let pipe = Pipe()
  process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
  process.arguments = arguments
  process.standardOutput = pipe
  process.standardError = pipe
  process.standardInput = FileHandle.nullDevice
  try process.run()
  let output = pipe.fileHandleForReading.readDataToEndOfFile()
  process.waitUntilExit()
  return ProgramResult(status: process.terminationStatus, output: String(decoding: output, as: UTF8.self))
}

/// Whether this machine has Python 3.
let hasPython = (try? run(["python3", "--version"]))?.status == 0

/// Runs the independent reader.
func runReader(_ store: String, _ arguments: String...) throws -> ProgramResult {
  let reader = testsDirectory.deletingLastPathComponent().appendingPathComponent("Reader/lacuna_reader.py").path
  return try run(["python3", "-B", reader, store] + arguments)
}

/// A store in a file, with the volumes that a test works on.
struct FileStoreUnderTest {
  static let uuid = StoreUUID(tag: 0x4C07_7645_6E61_636C, rest: 0x0102_0304_0506_0788)

  let path: String
  let blockByteCount: Int
  private(set) var engine: Engine
  var volumes: [DiskVolume] = []

  static func options(limit: UInt64) -> EngineOptions {
    var options = EngineOptions()
    options.limitByteCount = limit
    return options
  }

  /// Makes a store at `path` and opens it.
  init(making path: String, blockByteCount: Int, limit: UInt64, journalByteCount: UInt64 = 65536) throws {
    let device = try FileDevice(creating: FilePath(path), byteCount: 0)
    var format = FormatOptions()
    format.blockByteCount = blockByteCount
    format.journalByteCount = journalByteCount
    format.createdSeconds = 1_000_000_000
    format.uuid = Self.uuid
    try Engine.format(device, format)
    self.path = path
    self.blockByteCount = blockByteCount
    engine = try Engine.open(device, Self.options(limit: limit)).engine
  }

  mutating func addVolume(_ name: String, byteCount: Int) throws {
    volumes.append(
      try engine.createVolume(named: name, byteCount: UInt64(byteCount), createdSeconds: 1_000_000_001))
  }

  /// One random change of a random volume.
  func step(_ generator: inout SeededGenerator) throws {
    let volume = volumes[generator.number(below: volumes.count)]
    let longest = generator.oneIn(6) ? 40 * blockByteCount : 2 * blockByteCount
    var range = generator.range(below: volume.byteCount, longest: UInt64(longest))
    if !generator.oneIn(4) {
      let mask = ~UInt64(blockByteCount - 1)
      range = range.lowerBound & mask..<max(range.upperBound & mask, range.lowerBound & mask)
    }
    switch generator.number(below: 40) {
    case 0..<31:
      // The period divides no block, so that blocks which changed places show.
      var bytes = generator.nonZeroBytes(251)
      while bytes.count < range.upperBound - range.lowerBound { bytes.append(contentsOf: bytes) }
      try bytes[..<Int(range.upperBound - range.lowerBound)].withUnsafeBytes {
        try volume.write($0, at: range.lowerBound)
      }
    case 31..<34: try volume.zero(in: range, keepsSpace: true)
    case 34..<36: try volume.zero(in: range, keepsSpace: false)
    case 36: try volume.discard(in: range)
    case 37..<39: try volume.flush()
    default: if generator.oneIn(6) { try engine.checkpoint() }
    }
  }
}

extension DiskVolume {
  /// All bytes of the volume.
  func contents() throws -> Data {
    var data = Data(count: Int(byteCount))
    try data.withUnsafeMutableBytes { try read(into: $0, at: 0) }
    return data
  }

  /// All of the volume as lines like those of the reader's `map`, without blocks.
  func map() throws -> [String] {
    var lines: [String] = []
    try forEachExtent(in: 0..<byteCount) { range, kind in
      let word =
        switch kind {
        case .data: "data"
        case .unwritten: "zero"
        case .hole: "hole"
        }
      lines.append("\(range.lowerBound) \(range.upperBound - range.lowerBound) \(word)")
      return true
    }
    return lines
  }
}
