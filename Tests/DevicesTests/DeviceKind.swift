import Devices
import Foundation
import LacunaTestSupport
import SystemPackage
import Testing

extension DeviceKind {
  static let memory = DeviceKind("memory") { byteCount, body in
    try body(MemoryDevice(byteCount: byteCount, maximumByteCount: max(byteCount, 1 << 30)))
  }
  static let file = DeviceKind("file") { byteCount, body in
    try withTemporaryDirectory { try body(FileDevice(creating: $0.appending("device"), byteCount: byteCount)) }
  }
  static let scratch = DeviceKind("scratch", tellsStorage: false) { byteCount, body in
    try withTemporaryDirectory { directory in
      let path = directory.appending("device")
      let file = try FileDescriptor.open(path, .writeOnly, options: .create, permissions: .ownerReadWrite)
      try file.closeAfter { try file.resize(to: Int64(byteCount)) }
      try body(FileDevice(opening: path, access: .scratch))
      let bytes = try Foundation.Data(contentsOf: URL(fileURLWithPath: path.string))
      #expect(bytes.count == Int(byteCount) && bytes.allSatisfy { $0 == 0 }, "the file has changed")
    }
  }
  /// A file that was not given its name yet.
  static let unpublished = DeviceKind("unpublished file") { byteCount, body in
    try withTemporaryDirectory { directory in
      let device = try FileDevice(preparing: directory.appending("device"))
      try device.grow(to: byteCount)
      try body(device)
    }
  }
  static let loop = DeviceKind("loop", grows: false, tellsStorage: false) { byteCount, body in
    try LoopDevice.with(byteCount: byteCount) { try body(FileDevice(opening: $0)) }
  }

  /// Those that can be had here.
  static let available = [memory, file, scratch, unpublished] + (LoopDevice.isPossible ? [loop] : [])
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
