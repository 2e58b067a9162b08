import Devices
import Foundation
import LacunaTestSupport
import SystemPackage
import Testing

/// A new file gets its name when all that it is to hold is there.
@Suite struct FileDevicePublishingTests {
  private func names(in directory: FilePath) throws -> [String] {
    try FileManager.default.contentsOfDirectory(atPath: directory.string).sorted()
  }

  @Test func `a file that is prepared has its name only when it is published`() throws {
    try withTemporaryDirectory { directory in
      let path = directory.appending("disk.lacuna")
      let device = try FileDevice(preparing: path)
      try device.grow(to: 8192)
      try device.write(bytes: [1, 2, 3], at: 5)
      try device.sync()
      let before = try names(in: directory)
      #expect(before.count == 1 && before[0].hasPrefix(".disk.lacuna.") && before[0].hasSuffix(".new"), "\(before)")
      var status = stat()
      try #require(stat(directory.appending(before[0]).string, &status) == 0)
      #expect(status.st_mode & 0o777 == 0o600)
      try device.publish()
      try device.publish()
      #expect(try names(in: directory) == ["disk.lacuna"])
      #expect(try Data(contentsOf: URL(fileURLWithPath: path.string))[5..<8] == Data([1, 2, 3]))
      // The lock was there before the name.
      expectFailure(.lock, EAGAIN) { _ = try FileDevice(opening: path) }
    }
  }

  @Test func `of two files that are prepared for one name the first one gets it and the other goes`() throws {
    try withTemporaryDirectory { directory in
      let path = directory.appending("device")
      let (first, second) = (try FileDevice(preparing: path), try FileDevice(preparing: path))
      for (device, byte) in [(first, 1 as UInt8), (second, 2)] {
        try device.grow(to: 4096)
        try device.write(bytes: [byte], at: 0)
      }
      try first.publish()
      expectFailure(.open, EEXIST) { try second.publish() }
      #expect(try names(in: directory) == ["device"])
      #expect(try Data(contentsOf: URL(fileURLWithPath: path.string))[0] == 1)
    }
  }

  @Test func `a file that is not published leaves nothing`() throws {
    try withTemporaryDirectory { directory in
      do { _ = try FileDevice(preparing: directory.appending("dropped")) }
      let device = try FileDevice(preparing: directory.appending("abandoned"))
      device.abandon()
      device.abandon()
      #expect(try names(in: directory) == [])
      // It can be used still, and has no name to come.
      try device.grow(to: 4096)
      try device.publish()
      #expect(try names(in: directory) == [])
    }
  }

  @Test func `the longest name that a file can have is no obstacle`() throws {
    try withTemporaryDirectory { directory in
      for letter in ["x", "\u{FC}"] {
        let name = String(repeating: letter, count: 255 / letter.utf8.count)
        try FileDevice(preparing: directory.appending(name)).publish()
        #expect(access(directory.appending(name).string, F_OK) == 0)
      }
    }
  }
}
