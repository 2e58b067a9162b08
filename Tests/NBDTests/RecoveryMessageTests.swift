import Foundation
import Lacuna
import NBDTestSupport
import Testing

@Suite struct `What the server's log says of a recovery` {
  @Test(arguments: [false, true])
  func `one line of all writes that are left out, and one of each with -v`(_ isVerbose: Bool) throws {
    try PrivateDirectory.run { directory in
      let path = directory.file("s.lacuna")
      try ServedStore.run(path, ["size=8M", "volume=vm1"]) { store in
        let client = try store.open("vm1")
        for block in 0..<500 as Range<UInt64> {
          try client.write([UInt8](repeating: 0xD7, count: 4096), at: block * 8192)
        }
        try store.server.kill()
      }
      // As a power cut may leave it: the records are there, and the data is not.
      var bytes = try Data(contentsOf: URL(fileURLWithPath: path))
      var lostCount = 0
      for block in stride(from: 0, to: bytes.count - 4095, by: 4096)
      where bytes[block] == 0xD7 && bytes[block + 4095] == 0xD7 {
        bytes.resetBytes(in: block..<block + 4096)
        lostCount += 1
      }
      #expect(lostCount == 500)
      try bytes.write(to: URL(fileURLWithPath: path))
      let command = try PluginUnderTest.command(store: path, options: isVerbose ? ["-v"] : [])
      try NBDServer.run(command) { server in
        let lines = server.standardError.split(separator: "\n").filter { $0.contains("left out") }
        let warnings = lines.filter { $0.contains("warning: ") }
        #expect(warnings.count == 1 && warnings.first?.contains("500 writes") == true, "\(warnings)")
        #expect(warnings.first?.hasSuffix("500 of 'vm1'") == true, "\(warnings)")
        #expect(lines.count == (isVerbose ? 501 : 1))
        let results = server.standardError.split(separator: "\n").filter { $0.contains("the store is open (") }
        #expect(results.count == (isVerbose ? 1 : 0), "\(results)")
        #expect(results.allSatisfy { $0.contains("debug: ") && $0.contains("leftOutWrites=500") }, "\(results)")
      }
    }
  }
}
