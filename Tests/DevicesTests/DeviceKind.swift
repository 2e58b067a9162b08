import Devices
import Foundation
import SystemPackage
import Testing

/// The devices that the conformance suite runs on.
enum DeviceKind: String, CaseIterable, CustomTestStringConvertible {
  case memory, file, scratch, loop

  var testDescription: String { rawValue }

  /// Those that can be had here.
  static let available = allCases.filter { $0 != .loop || LoopDevice.isPossible }

  /// Those whose length is not fixed.
  static let growing: [DeviceKind] = [.memory, .file, .scratch]

  /// Runs `body` with a new device of `byteCount` bytes and puts everything away afterwards.
  func withDevice(byteCount: UInt64, _ body: (any BlockDevice) throws -> Void) throws {
    switch self {
    case .memory:
      try body(MemoryDevice(byteCount: byteCount, maximumByteCount: max(byteCount, 1 << 30)))
    case .file:
      try withTemporaryDirectory { try body(FileDevice(creating: $0.appending("device"), byteCount: byteCount)) }
    case .scratch:
      try withTemporaryDirectory { directory in
        let path = directory.appending("device")
        let file = try FileDescriptor.open(path, .writeOnly, options: .create, permissions: .ownerReadWrite)
        try file.closeAfter { try file.resize(to: Int64(byteCount)) }
        try body(FileDevice(opening: path, access: .scratch))
        let bytes = try Foundation.Data(contentsOf: URL(fileURLWithPath: path.string))
        #expect(bytes.count == Int(byteCount) && bytes.allSatisfy { $0 == 0 }, "the file has changed")
      }
    case .loop:
      try LoopDevice.with(byteCount: byteCount) { try body(FileDevice(opening: $0)) }
    }
  }
}

/// A file that losetup(8) shows as a block device.
enum LoopDevice {
  /// Whether this machine and this user can have one.
  static let isPossible: Bool = {
    do {
      try with(byteCount: 1 << 20) { _ in }
      return true
    } catch {
      return false
    }
  }()

  static func with(byteCount: UInt64, _ body: (FilePath) throws -> Void) throws {
    try withTemporaryDirectory { directory in
      let image = directory.appending("image")
      let file = try FileDescriptor.open(image, .writeOnly, options: .create, permissions: .ownerReadWrite)
      try file.closeAfter { try file.resize(to: Int64(byteCount)) }
      let name = try output("losetup", "--find", "--show", image.string)
      defer { _ = try? output("losetup", "--detach", name) }
      try body(FilePath(name))
    }
  }
}

/// A command that failed: its exit status.
struct CommandFailure: Error {
  var status: Int32
}

/// Runs a command and returns what it printed, without white space at the end.
func output(_ command: String...) throws -> String { try output(command) }

func output(_ command: [String]) throws -> String {
  let process = Process()
  let pipe = Pipe()
  process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
  process.arguments = ["PATH=/usr/sbin:/sbin:/usr/bin:/bin"] + command
  process.standardOutput = pipe
  process.standardError = FileHandle.nullDevice
  try process.run()
  let data = try pipe.fileHandleForReading.readToEnd() ?? Data()
  process.waitUntilExit()
  guard process.terminationStatus == 0 else { throw CommandFailure(status: process.terminationStatus) }
  return String(decoding: data, as: UTF8.self).trimmingCharacters(in: .whitespacesAndNewlines)
}

/// Runs `body` with a directory of its own, which is removed afterwards.
func withTemporaryDirectory<Result>(_ body: (FilePath) throws -> Result) throws -> Result {
  let url = FileManager.default.temporaryDirectory.appendingPathComponent("lacuna-\(UUID().uuidString)")
  try FileManager.default.createDirectory(at: url, withIntermediateDirectories: true)
  defer { try? FileManager.default.removeItem(at: url) }
  return try body(FilePath(url.path))
}

extension BlockDevice {
  /// The bytes of a range.
  func bytes(at offset: UInt64, count: Int) throws(DeviceError) -> [UInt8] {
    // Not zero, so that a read that leaves bytes alone shows.
    var bytes = [UInt8](repeating: 0xEE, count: count)
    let result = bytes.withUnsafeMutableBytes { buffer in
      Result { () throws(DeviceError) in try read(into: buffer, at: offset) }
    }
    try result.get()
    return bytes
  }

  /// Writes bytes at an offset.
  func write(bytes: [UInt8], at offset: UInt64) throws(DeviceError) {
    let result = bytes.withUnsafeBytes { buffer in
      Result { () throws(DeviceError) in try write(buffer, at: offset) }
    }
    try result.get()
  }
}

/// Bytes without a zero among them, different for each `seed`.
func pattern(_ count: Int, seed: Int) -> [UInt8] {
  (0..<count).map { UInt8(truncatingIfNeeded: ($0 &* 31 &+ seed &* 97) % 251 + 1) }
}

/// Opens a device that was closed a moment ago.
///
/// Other tests start processes meanwhile, and such a process holds what was open here until it has become its program.
func openWhenFree(_ path: FilePath, access: FileDevice.Access = .readWrite) throws(DeviceError) -> FileDevice {
  for _ in 0..<500 {
    do throws(DeviceError) {
      return try FileDevice(opening: path, access: access)
    } catch  where error.operation == .lock {
      usleep(10_000)
    }
  }
  return try FileDevice(opening: path, access: access)
}

/// Checks that `body` fails with a `DeviceError` of this operation and error number.
func expectFailure(
  _ operation: DeviceError.Operation, _ errno: Int32, sourceLocation: SourceLocation = #_sourceLocation,
  _ body: () throws -> Void
) {
  let error = #expect(throws: DeviceError.self, sourceLocation: sourceLocation) { try body() }
  #expect(error?.operation == operation, sourceLocation: sourceLocation)
  #expect(error?.errno == errno, sourceLocation: sourceLocation)
}

/// That many zeroes.
func zeroes(_ count: Int) -> [UInt8] {
  [UInt8](repeating: 0, count: count)
}
