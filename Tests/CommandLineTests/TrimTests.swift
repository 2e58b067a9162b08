import Glibc
import NBDTestSupport
import Testing

@Suite struct `Giving space back` {
  /// How many bytes the host has for a file.
  private func allocated(_ path: String) -> Int {
    var status = stat()
    return stat(path, &status) == 0 ? Int(status.st_blocks) * 512 : 0
  }

  /// Writes 48 MiB to `vm1`, makes holes of it, and is killed at once.
  private func useAndKill(_ lab: Lab) throws {
    try lab.serve { server in
      let client = try NBDClient(socketPath: server.socketPath, exportName: "vm1")
      try client.fill(0..<48 << 20, with: 5)
      try client.flush()
      try client.trim(48 << 20, at: 0)
      try server.kill()
    }
    #expect(allocated(lab.store) > 60 << 20)
  }

  private func used(_ lab: Lab) throws -> Int {
    let text = try lab.run(["info", "--json"]).succeeded().standardOutput
    return try #require(text.firstMatch(of: #/"used" : (\d+)/#).flatMap { Int($0.1) })
  }

  @Test(arguments: [false, true])
  func `of a free store says how much came back`(_ isJSON: Bool) throws {
    try Lab.run(.free) { lab in
      try useAndKill(lab)
      let before = allocated(lab.store)
      let text = try lab.run(isJSON ? ["trim", "--json"] : ["trim"]).succeeded().standardOutput
      let after = allocated(lab.store)
      let number =
        isJSON
        ? text.wholeMatch(of: #/\{\n  "bytes" : (\d+),\n  "exact" : true\n\}\n/#)?.1
        : text.wholeMatch(of: #/The host got back [\d.]+ MiB \((\d+) bytes\)\n/#)?.1
      let bytes = try #require(number.flatMap { Int($0) }, "\(text)")
      #expect(bytes >= 47 << 20 && abs(before - after - bytes) < 1 << 20, "\(before) to \(after): \(text)")
      #expect(try after < used(lab) + 12 << 20)
      try lab.run(["check"]).succeeded()
      // What its own checkpoints have used.
      let again = try lab.run(["trim"]).succeeded().standardOutput
      #expect(again.wholeMatch(of: #/The host got back (0 bytes|[\d.]+ KiB .*)\n/#) != nil, "\(again)")
    }
  }

  @Test func `of a served store does it at once`() throws {
    try Lab.run(.free) { lab in
      try useAndKill(lab)
      try lab.serve { server in
        let client = try NBDClient(socketPath: server.socketPath, exportName: "vm1")
        try client.write([1], at: 0)
        try lab.run(["trim"]).succeeded()
        // The server may just be giving back a run by itself.
        let isBack = try Deadline(secondsFromNow: 20).wait { try allocated(lab.store) < used(lab) + 12 << 20 }
        #expect(isBack, "\(allocated(lab.store)) bytes are allocated")
        try lab.run(["check"]).succeeded()
        try client.disconnect()
      }
    }
  }

  @Test(.enabled(if: LoopDevice.isPossible, "needs losetup and the right to use it"))
  func `of a store on a block device tells the device of all that is free`() throws {
    try LoopDevice.with(megabytes: 200) { device in
      try device.lacuna(["create", "--size", "64M"]).succeeded()
      let command = NBDServerCommand(plugin: try Program.plugin(), parameters: ["store=\(device.path)", "control=off"])
      try NBDServer.run(command) { server in
        let client = try NBDClient(socketPath: server.socketPath)
        try client.fill(0..<48 << 20, with: 5)
        try client.flush()
        try client.trim(48 << 20, at: 0)
        try server.kill()
      }
      #expect(device.allocated > 48 << 20)
      let text = try device.lacuna(["trim"]).succeeded().standardOutput
      let bytes = text.wholeMatch(of: #/The device was told that [\d.]+ MiB \((\d+) bytes\) are free\n/#)?.1
      #expect(bytes.flatMap { Int($0) }.map { $0 > 170 << 20 && $0 < 200 << 20 } == true, "\(text)")
      // What is used, most of it the journal.
      #expect(device.allocated < 20 << 20)
      #expect(try device.lacuna(["trim", "--json"]).succeeded().standardOutput.contains(#""exact" : false"#))
      try device.lacuna(["check", "--data"]).succeeded()
    }
  }
}
