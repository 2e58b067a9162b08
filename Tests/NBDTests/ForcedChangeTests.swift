import Glibc
import Lacuna
import NBDTestSupport
import Testing

/// What clients are told whose volume is deleted, or made smaller, with force.
@Suite struct `Volumes that are changed under their clients` {
  private let mebi: UInt64 = 1 << 20

  private func expect(_ code: Int32, _ what: String, _ body: () throws -> Void) {
    let error = #expect(throws: NBDError.self, "\(what)") { try body() }
    #expect(error?.code == code, "\(what): \(String(describing: error))")
  }

  @Test(arguments: ["disk", "disk@a", "other@b..c"])
  func `every request for what was deleted is an input or output error`(export: String) throws {
    try PrivateDirectory.run { directory in
      try ServedStore.run(directory.file("s.lacuna"), ["size=4M", "journal=1M"]) { store in
        _ = try store.control.call(CreateSnapshots(names: ["disk@a"]))
        _ = try store.control.call(CreateVolume(name: "other", size: mebi))
        for name in ["b", "c"] { _ = try store.control.call(CreateSnapshots(names: ["other@\(name)"])) }
        let client = try store.open(export)
        let doomed = export == "other@b..c" ? ["other@b", "other@c"] : [export]
        _ = try store.control.call(DeleteVolumes(names: doomed, force: true))
        expect(EIO, "a read") { _ = try client.read(4096, at: 0) }
        expect(EIO, "block status") { _ = try client.blockStatus(4096, at: 0) }
        expect(EIO, "a cache request") { try client.cache(4096, at: 0) }
        if try !client.isReadOnly() {
          expect(EIO, "a write") { try client.write([1], at: 0) }
          expect(EIO, "a write of blocks") { try client.write([UInt8](repeating: 1, count: 8192), at: 0) }
          expect(EIO, "a zero") { try client.zero(4096, at: 0) }
          expect(EIO, "a trim") { try client.trim(4096, at: 0) }
          expect(EIO, "a flush") { try client.flush() }
        }
        // The connection goes on, and others do not notice.
        expect(EIO, "a second read") { _ = try client.read(1, at: 1) }
        #expect(try store.open("other").read(1, at: 0) == [0])
      }
    }
  }

  @Test func `behind the end of a smaller volume there is no room to write and nothing to read`() throws {
    try PrivateDirectory.run { directory in
      try ServedStore.run(directory.file("s.lacuna"), ["size=4M", "journal=1M"]) { store in
        let client = try store.open("disk")
        _ = try store.control.call(ResizeVolume(name: "disk", size: 2 * mebi, shrink: true, force: true))
        let (over, behind) = (2 * mebi - 4096, 3 * mebi)
        for offset in [over, 2 * mebi, behind, 4 * mebi - 8192] {
          expect(ENOSPC, "a write of blocks at \(offset)") {
            try client.write([UInt8](repeating: 1, count: 8192), at: offset)
          }
          expect(ENOSPC, "a zero at \(offset)") { try client.zero(8192, at: offset) }
          expect(ENOSPC, "a zero without holes at \(offset)") { try client.zero(8192, at: offset, flags: .noHole) }
          expect(EINVAL, "a read at \(offset)") { _ = try client.read(8192, at: offset) }
          expect(EINVAL, "a trim at \(offset)") { try client.trim(8192, at: offset) }
          expect(EINVAL, "a cache request at \(offset)") { try client.cache(8192, at: offset) }
        }
        expect(ENOSPC, "a write of a byte") { try client.write([1], at: behind) }
        expect(EINVAL, "block status") { _ = try client.blockStatus(8192, at: behind) }
        // An answer may be shorter than what was asked for.
        #expect(try client.blockStatus(8192, at: over).map(\.byteCount) == [4096])
        try client.write([7], at: 2 * mebi - 1)
        #expect(try client.read(1, at: 2 * mebi - 1) == [7])
        try store.checkSound()
      }
    }
  }
}
