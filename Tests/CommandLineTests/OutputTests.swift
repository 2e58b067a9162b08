import Glibc
import NBDTestSupport
import Testing

@Suite struct `What verbs print` {
  @Test func `is a table of names, sizes and origins`() throws {
    try Lab.run(.free) { lab in
      try lab.write("vm1", [(0, 1 << 20, 1), (8 << 20, 4096, 2)])
      try lab.run(["snapshot", "vm1@a"]).succeeded()
      try lab.run(["clone", "vm1@a", "copies/vm2"]).succeeded()
      try lab.run(["set", "copies/vm2", "--read-only"]).succeeded()
      let table = try lab.run(["list"]).succeeded().standardOutput.replacing(
        /\d{4}-\d\d-\d\d \d\d:\d\d:\d\d/, with: "DATE")
      #expect(
        rows(table) == [
          ["copies/vm2", "64", "MiB", "1", "MiB", "0", "read-only", "DATE", "vm1@a"],
          ["vm1", "64", "MiB", "1", "MiB", "0", "default", "DATE", "-"],
          ["vm1@a", "64", "MiB", "1", "MiB", "0", "DATE", "vm1"],
        ], "\(table)")
      // Aligned: names to the left, sizes to the right.
      let ends = table.split(separator: "\n").dropFirst().map {
        $0.firstRange(of: "MiB")?.lowerBound.utf16Offset(in: $0)
      }
      #expect(Set(ends).count == 1, "\(table)")
    }
  }

  private func rows(_ table: String) -> [[Substring]] {
    table.split(separator: "\n").dropFirst().map { $0.split(separator: " ") }
  }

  @Test func `is what lies where, for people and as qemu-img's users know it`() throws {
    try Lab.run(.free) { lab in
      try lab.write("vm1", [(65536, 8192, 1), (1 << 20, 4096, 2)])
      let lines = try lab.run(["map", "vm1"]).succeeded().standardOutput.split(separator: "\n")
      let cells = lines.map { $0.split(separator: " ") }
      #expect(cells[0] == ["Offset", "Length", "Kind", "Mapped", "to"], "\(lines)")
      #expect(
        cells.dropFirst().map { $0.prefix(3) } == [
          ["0", "0x10000", "hole"], ["0x10000", "0x2000", "data"], ["0x12000", "0xee000", "hole"],
          ["0x100000", "0x1000", "data"], ["0x101000", "0x3eff000", "hole"],
        ], "\(lines)")
      // The bytes are in the store where it says that they are.
      let offset = try #require(cells[2].last.flatMap { UInt64($0.dropFirst(2), radix: 16) })
      let bytes = try FinishedCommand.run([
        "sh", "-c", "tail -c +\(offset + 1) \(lab.store) | head -c 8192 | od -An -v -tu1",
      ])
      #expect(bytes.standardOutput.split(whereSeparator: \.isWhitespace) == Array(repeating: "1", count: 8192))

      let command = "\(try Program.path()) map \(lab.store) vm1 --json"
      let select = "jq -c '.[] | select(.data) | [.start, .length, .depth, .present, .zero, .compressed, .offset]'"
      let data = try FinishedCommand.run(["sh", "-c", "\(command) | \(select)"]).standardOutput
      #expect(data.hasPrefix("[65536,8192,0,true,false,false,\(offset)]\n[1048576,4096,0,true,false,false,"), "\(data)")
      let holes = try FinishedCommand.run(
        ["sh", "-c", "\(command) | jq -c '.[] | select(.data | not) | [.start, .length, .present, .zero, .offset]'"])
      #expect(
        holes.standardOutput == """
          [0,65536,false,true,null]
          [73728,974848,false,true,null]
          [1052672,66056192,false,true,null]

          """, "\(holes.standardOutput)")
    }
  }

  @Test func `is what changed between two snapshots`() throws {
    try Lab.run(.free) { lab in
      try lab.write("vm1", [(0, 65536, 1)])
      try lab.run(["snapshot", "vm1@a"]).succeeded()
      try lab.write("vm1", [(8192, 4096, 2), (1 << 20, 8192, 3), (16384, 4096, 0)])
      let expected = [["0x2000", "0x1000", "data"], ["0x4000", "0x1000", "zero"], ["0x100000", "0x2000", "data"]]
      let lines = try lab.run(["diff", "vm1@a", "vm1"]).succeeded().standardOutput.split(separator: "\n").dropFirst()
      #expect(lines.map { $0.split(separator: " ").map(String.init) } == expected, "\(lines)")
      #expect(
        try lab.run(["diff", "vm1@a", "vm1", "--json"]).succeeded().standardOutput == """
          {"extents": [{"kind":"data","length":4096,"offset":8192},
          {"kind":"zero","length":4096,"offset":16384},
          {"kind":"data","length":8192,"offset":1048576}]}

          """)
      #expect(try lab.run(["diff", "vm1", "vm1", "--json"]).succeeded().standardOutput == "{\"extents\": []}\n")
    }
  }

  @Test func `is JSON wherever that was asked for`() throws {
    try Lab.run(.free) { lab in
      for arguments in [
        ["info"], ["info", "vm1"], ["list"], ["list", "--space"], ["map", "vm1"], ["diff", "vm1", "vm1"], ["stats"],
        ["check"], ["dump", "0"], ["create", "--volume", "a", "--size", "1M"], ["resize", "a", "2M"],
        ["rename", "a", "b"], ["set", "b", "--quota", "1G"], ["set", "--no-default"], ["snapshot", "b@c"],
        ["clone", "b@c", "d"], ["rollback", "b@c", "--yes"], ["delete", "d", "--dry-run"], ["delete", "d", "--yes"],
      ] {
        let line =
          "\(try Program.path()) \(arguments[0]) \(lab.store) \(arguments.dropFirst().joined(separator: " ")) --json"
        let finished = try FinishedCommand.run(["sh", "-c", "\(line) | jq -e type"])
        #expect(finished.status == .exited(0) && finished.standardError.isEmpty, "\(arguments): \(finished)")
      }
    }
  }

  @Test func `costs a free store not a byte, where it only looks`() throws {
    try PrivateDirectory.run { directory in
      let lab = Lab(directory: directory, way: .free)
      try Program.run(["create", lab.store, "--volume", "vm1", "--size", "64M"]).succeeded()
      try lab.run(["snapshot", "vm1@a"]).succeeded()
      // Killed, so that its journal has something to merge.
      try lab.serve { server in
        let client = try NBDClient(socketPath: server.socketPath, exportName: "vm1")
        try client.write([UInt8](repeating: 5, count: 65536), at: 0)
        try server.kill()
      }
      let before = try FinishedCommand.run(["sha256sum", lab.store]).standardOutput
      for arguments in [
        ["info"], ["info", "vm1"], ["list", "--space"], ["map", "vm1"], ["diff", "vm1@a", "vm1"], ["stats"],
        ["check", "--data"], ["dump", "0"], ["delete", "vm1", "--dry-run"],
      ] {
        try lab.run(arguments).succeeded()
        #expect(try FinishedCommand.run(["sha256sum", lab.store]).standardOutput == before, "\(arguments)")
      }
      #expect(try lab.run(["map", "vm1"]).standardOutput.contains("0x10000"))
    }
  }

  @Test func `is right for verbs that run at the same time, on a free store`() throws {
    try Lab.run(.free) { lab in
      let script = """
        for number in 1 2 3 4 5 6; do "$1" snapshot "$2" vm1@$number & "$1" list "$2" >/dev/null & done; wait
        "$1" list "$2" --type snapshot
        """
      let finished = try FinishedCommand.run(["sh", "-c", script, "sh", try Program.path(), lab.store]).succeeded()
      for number in 1...6 { #expect(finished.standardOutput.contains("vm1@\(number) "), "\(finished.standardOutput)") }
    }
  }

  @Test func `names the store by its whole path, as a server does`() throws {
    for way in Way.allCases {
      try Lab.run(way) { lab in
        let command = try "cd \(lab.directory.path) && ln -s s.lacuna link && \(Program.path()) info link --json"
        let finished = try FinishedCommand.run(["sh", "-c", command]).succeeded()
        #expect(finished.standardOutput.contains("\"path\" : \"\(lab.store)\","), "\(finished.standardOutput)")
      }
    }
  }

  @Test(arguments: Way.allCases) func `is what a check found, with the path to it and exit code 2`(_ way: Way) throws {
    try PrivateDirectory.run { directory in
      let template = directory.file("template")
      try Lab.run(.free) { lab in
        try lab.write("vm1", [(0, 65536, 1)])
        let map = try lab.run(["map", "vm1"]).succeeded().standardOutput
        let offset = try #require(
          map.firstMatch(of: /0x10000 +data +0x([0-9a-f]+)/).flatMap { UInt64($0.1, radix: 16) })
        let damage = "printf x | dd of=\(lab.store) bs=1 seek=\(offset + 5000) conv=notrunc status=none"
        #expect(try FinishedCommand.run(["sh", "-c", damage]).status == .exited(0))
        #expect(rename(lab.store, template) == 0)
      }
      try Lab.run(way, copying: template) { lab in
        try lab.run(["check"]).succeeded()
        let found = try lab.run(["check", "--data"])
        #expect(found.status == .exited(2) && found.standardError.isEmpty, "\(found)")
        let lines = found.standardOutput.split(separator: "\n")
        #expect(lines.count == 2 && lines[0].contains("vm1") && lines[1].hasPrefix("1 finding in "), "\(lines)")
        let json = try lab.run(["check", "--data", "--json"])
        #expect(json.status == .exited(2) && json.standardOutput.contains("\"path\" : "), "\(json)")
      }
    }
  }
}
