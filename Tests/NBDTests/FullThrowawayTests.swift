import Glibc
import Lacuna
import NBDTestSupport
import Testing

@Suite struct `A throwaway for which there is no room` {
  @Test(arguments: ["disk@a+", "disk+x"]) func `is refused, and the log says why`(export: String) throws {
    try PrivateDirectory.run { directory in
      try ServedStore.run(directory.file("s.lacuna"), ["size=1G", "journal=1M", "limit=8M"]) { store in
        _ = try store.control.call(CreateSnapshots(names: ["disk@a"]))
        let client = try store.open("disk")
        var code: Int32 = 0
        for block in 0..<UInt64(4096) where code == 0 {
          do throws(NBDError) { try client.write([UInt8](repeating: 7, count: 4096), at: block * 8192) } catch {
            code = error.code
          }
        }
        #expect(code == ENOSPC)
        #expect(throws: NBDError.self) { try store.open(export) }
        let line = store.server.standardError.split(separator: "\n").last { $0.contains("throwaway") }
        #expect(
          line?.contains("the throwaway '\(export)' cannot be made: the store is too full") == true,
          "\(line ?? "no line")")
      }
    }
  }
}
