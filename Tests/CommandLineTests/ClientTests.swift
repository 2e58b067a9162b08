import NBDTestSupport
import Testing

@Suite struct `A served store with clients` {
  @Test func `keeps what they use, unless forced`() throws {
    try Lab.run(.served) { lab in
      try lab.run(["snapshot", "vm1@a"]).succeeded()
      let client = try NBDClient(socketPath: lab.socketPath ?? "", exportName: "vm1")
      for arguments in [
        ["rollback", "vm1@a", "--yes"], ["resize", "vm1", "1M", "--yes"], ["delete", "vm1", "--yes"],
      ] {
        try lab.run(arguments).refused(1, naming: ["vm1", "--force"], "\(arguments)")
      }
      try lab.run(["resize", "vm1", "128M"]).succeeded()
      for arguments in [
        ["rollback", "vm1@a", "--yes"], ["resize", "vm1", "1M", "--yes"], ["delete", "vm1", "--yes"],
      ] {
        try lab.run(arguments + ["--force"]).succeeded()
      }
      #expect(throws: NBDError.self) { try client.write([1], at: 0) }
    }
  }

  @Test func `shows them and their throwaways, and keeps one of these that has a name`() throws {
    try Lab.run(.served) { lab in
      try lab.run(["snapshot", "vm1@a"]).succeeded()
      let first = try NBDClient(socketPath: lab.socketPath ?? "", exportName: "vm1@a+trial")
      let second = try NBDClient(socketPath: lab.socketPath ?? "", exportName: "vm1@a+trial")
      try first.write([UInt8](repeating: 7, count: 4096), at: 8192)
      let throwaways = try lab.run(["list", "--type", "throwaway"]).succeeded().standardOutput
      #expect(throwaways.contains(#/vm1@a\+trial +64 MiB .* 2 /#), "\(throwaways)")
      try lab.run(["promote", "vm1@a+trial", "kept"]).succeeded()
      try second.write([UInt8](repeating: 8, count: 4096), at: 1 << 20)
      try second.flush()
      try first.disconnect()
      try second.disconnect()
      #expect(try lab.run(["list", "--type", "throwaway"]).succeeded().standardOutput.filter(\.isNewline).count == 1)
      let map = try lab.run(["map", "kept"]).succeeded().standardOutput
      #expect(map.contains(/0x2000 +0x1000 +data/) && map.contains(/0x100000 +0x1000 +data/), "\(map)")
    }
  }

  @Test func `lists throwaways with all the rest, and whose their space is`() throws {
    try Lab.run(.served) { lab in
      try lab.write("vm1", [(0, 1 << 20, 1)])
      try lab.run(["snapshot", "vm1@a"]).succeeded()
      let named = try NBDClient(socketPath: lab.socketPath ?? "", exportName: "vm1@a+trial")
      let alone = try NBDClient(socketPath: lab.socketPath ?? "", exportName: "vm1+")
      try named.write([UInt8](repeating: 7, count: 2 << 20), at: 8 << 20)
      let list = try lab.run(["list", "--all", "--space"]).succeeded().standardOutput
      let names = list.split(separator: "\n").map { $0.prefix { $0 != " " } }
      #expect(names == ["NAME", "vm1", "vm1+", "vm1@a", "vm1@a+trial"], "\(list)")
      #expect(list.contains(#/vm1@a\+trial +64 MiB +3 MiB +2 MiB +1 MiB +1 +throwaway /#), "\(list)")
      #expect(list.contains(#/vm1\+ +64 MiB +1 MiB +0 B +1 MiB +1 +throwaway /#), "\(list)")
      #expect(try lab.run(["list"]).succeeded().standardOutput.filter(\.isNewline).count == 3)
      #expect(try lab.run(["info", "vm1@a+trial"]).succeeded().standardOutput.contains(/exclusive: +2 MiB/))
      try lab.run(["list", "--all", "--type", "snapshot"]).refused(64, naming: ["--all", "--type"])
      try alone.disconnect()
      try named.disconnect()
    }
  }

  @Test func `says of a throwaway that it is one, and what can be done with it`() throws {
    try Lab.run(.served) { lab in
      try lab.run(["snapshot", "vm1@a"]).succeeded()
      let verbs: [(String) -> [String]] = [
        { ["delete", $0, "--yes"] }, { ["delete", $0, "--dry-run"] }, { ["rename", $0, "x"] },
        { ["resize", $0, "128M"] },
        { ["set", $0, "--quota", "1G"] }, { ["set", $0, "--default"] }, { ["clone", $0, "x"] },
      ]
      for name in ["vm1@a+trial", "vm1+trial", "vm1@a+"] {
        let client = try NBDClient(socketPath: lab.socketPath ?? "", exportName: name)
        for verb in verbs {
          try lab.run(verb(name)).refused(1, naming: [name, "is a throwaway", "promote"], "\(verb(name))")
        }
        try client.disconnect()
        #expect(Deadline(secondsFromNow: 20).wait { (try? lab.run(["info", name]).status) == .exited(1) })
        for verb in verbs + [{ ["info", $0] }, { ["map", $0] }, { ["promote", $0, "x"] }] {
          try lab.run(verb(name)).refused(
            1, naming: ["no throwaway '\(name)' is open", "lacuna list"], "\(verb(name))")
        }
      }
      let client = try NBDClient(socketPath: lab.socketPath ?? "", exportName: "vm1+trial")
      try lab.run(["snapshot", "vm1+trial@b"]).refused(1, naming: ["vm1+trial", "is a throwaway"])
      try client.disconnect()
    }
  }

  @Test func `says at once what they have written`() throws {
    try Lab.run(.served) { lab in
      let client = try NBDClient(socketPath: lab.socketPath ?? "", exportName: "vm1")
      for round in 1...5 {
        try client.write([UInt8](repeating: 7, count: 1 << 20), at: UInt64(round) << 20)
        if round % 2 == 0 { try client.flush() }
        let size = "\(round) MiB"
        let list = try lab.run(["list", "--space"]).succeeded().standardOutput
        #expect(list.contains(try Regex("vm1 +64 MiB +\(size) +\(size) +0 B ")), "\(list)")
        let info = try lab.run(["info", "vm1"]).succeeded().standardOutput
        #expect(info.contains(try Regex("mapped: +\(size) ")), "\(info)")
        let deletion = try lab.run(["delete", "vm1", "--dry-run", "--json"]).succeeded().standardOutput
        let bytes = try #require(deletion.firstMatch(of: /"bytes" : (\d+)/).flatMap { Int($0.1) })
        #expect(bytes >= round << 20 && bytes < (round + 1) << 20, "\(deletion)")
      }
      try lab.run(["snapshot", "vm1@a"]).succeeded()
      try client.trim(1 << 20, at: 1 << 20)
      let list = try lab.run(["list", "--space"]).succeeded().standardOutput
      #expect(list.contains(#/vm1 +64 MiB +4 MiB +0 B +4 MiB /#), "\(list)")
      #expect(list.contains(#/vm1@a +64 MiB +5 MiB +1 MiB +4 MiB /#), "\(list)")
      try client.disconnect()
    }
  }

  @Test func `may map more than a quota that came later, which is no fault`() throws {
    try Lab.run(.served) { lab in
      try lab.write("vm1", [(0, 4 << 20, 1)])
      try lab.run(["snapshot", "vm1@a"]).succeeded()
      try lab.run(["set", "vm1", "--quota", "1M"]).succeeded()
      func expectOverQuota() throws {
        let list = try lab.run(["list"]).succeeded().standardOutput
        #expect(list.contains(#/vm1 +64 MiB +4 MiB +\d+ +default,over-quota /#), "\(list)")
        let info = try lab.run(["info", "vm1"]).succeeded().standardOutput
        #expect(info.contains(#/quota: +1 MiB .* exceeds/#), "\(info)")
        try lab.run(["check", "--data"]).succeeded()
      }
      try expectOverQuota()
      let client = try NBDClient(socketPath: lab.socketPath ?? "", exportName: "vm1")
      try client.write([UInt8](repeating: 2, count: 4096), at: 0)
      #expect(throws: NBDError.self) { try client.write([UInt8](repeating: 2, count: 4096), at: 32 << 20) }
      try client.trim(4 << 20, at: 0)
      try client.disconnect()
      #expect(!(try lab.run(["list"]).succeeded().standardOutput).contains("over-quota"))
      try lab.run(["rollback", "vm1@a", "--yes"]).succeeded()
      try expectOverQuota()
    }
  }

  @Test func `counts what they do`() throws {
    try Lab.run(.served) { lab in
      try lab.write("vm1", [(0, 65536, 1), (1 << 20, 4096, 2)])
      let table = try lab.run(["stats"]).succeeded().standardOutput
      #expect(table.contains(#/write +2 +68 KiB +0 /#), "\(table)")
      let text = try lab.run(["stats", "--prometheus"]).succeeded().standardOutput
      let label = "store=\"\(lab.store)\",operation=\"write\""
      #expect(text.contains("lacuna_operations_total{\(label)} 2\n"), "\(text)")
      #expect(text.contains("lacuna_operation_bytes_total{\(label)} 69632\n"), "\(text)")
      #expect(text.contains("lacuna_operation_duration_seconds_bucket{\(label),le=\"+Inf\"} 2\n"), "\(text)")
    }
  }

  @Test func `prints statistics that Prometheus reads`() throws {
    try Lab.run(.served) { lab in
      let text = try lab.run(["stats", "--prometheus"]).succeeded().standardOutput
      var types: [Substring: Substring] = [:]
      for line in text.split(separator: "\n") {
        if let type = line.wholeMatch(of: /# TYPE (lacuna_[a-z_]+) (counter|gauge|histogram)/) {
          #expect(types.updateValue(type.2, forKey: type.1) == nil, "\(line)")
        } else if !line.hasPrefix("# HELP lacuna_") {
          let series = line.wholeMatch(of: /(lacuna_[a-z_]+?)(_bucket|_sum|_count)?\{([a-z]+="[^"]*",?)+\} [0-9.e+-]+/)
          let type = series.flatMap { types[$0.1] ?? types[$0.1 + ($0.2 ?? "")] }
          #expect(type != nil, "\(line)")
          #expect((type == "counter") == (series?.1.hasSuffix("_total") == true), "\(line)")
        }
      }
      #expect(types.count > 20)
    }
  }
}
