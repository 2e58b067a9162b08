import NBDTestSupport
import Testing

/// A volume that is deleted without its snapshots, and made anew: the old snapshots are none of its own.
@Suite struct `Snapshots of an earlier volume, for the user` {
  private func makeAnew(_ lab: Lab) throws {
    try lab.write("vm1", [(0, 4096, 1)])
    try lab.run(["snapshot", "vm1@a"]).succeeded()
    try lab.run(["snapshot", "vm1@b"]).succeeded()
    try lab.run(["delete", "vm1", "--yes"]).succeeded()
    try lab.run(["create", "--volume", "vm1", "--size", "64M"]).succeeded()
    try lab.write("vm1", [(0, 4096, 2)])
    try lab.run(["snapshot", "vm1@c"]).succeeded()
  }

  private func names(_ lab: Lab) throws -> [Substring] {
    let lines = try lab.run(["list"]).succeeded().standardOutput.split(separator: "\n").dropFirst()
    return lines.compactMap { line in
      let words = line.split(separator: " ")
      return words.first.flatMap { name in words.last.map { "\(name) of \($0)" } }
    }
  }

  @Test(arguments: Way.allCases) func `stay where they are, whatever is done to the new one`(_ way: Way) throws {
    try Lab.run(way) { lab in
      try makeAnew(lab)
      #expect(try names(lab) == ["vm1 of -", "vm1@a of -", "vm1@b of -", "vm1@c of vm1"])
      try lab.run(["snapshot", "vm1@a"]).refused(1, naming: ["vm1@a", "another volume"])
      try lab.run(["rollback", "vm1@a", "--yes"]).refused(1, naming: ["vm1@a", "clone"])
      let plan = try lab.run(["delete", "vm1", "--snapshots", "--dry-run"]).succeeded().standardOutput
      #expect(plan.hasPrefix("Would delete vm1\nWould delete vm1@c\nAt least"), "\(plan)")
      try lab.run(["rename", "vm1", "vm2"]).succeeded()
      #expect(try names(lab) == ["vm1@a of -", "vm1@b of -", "vm2 of -", "vm2@c of vm2"])
      try lab.run(["rename", "vm2", "vm1"]).succeeded()
      let gone = try lab.run(["delete", "vm1", "--snapshots", "--yes"]).succeeded().standardOutput
      #expect(gone.hasPrefix("Deleted vm1\nDeleted vm1@c\n2 snapshots named for vm1 stay: vm1@a, vm1@b\n"), "\(gone)")
      #expect(try names(lab) == ["vm1@a of -", "vm1@b of -"])
      // What they have can be had again.
      try lab.run(["clone", "vm1@a", "vm1"]).succeeded()
      #expect(try names(lab) == ["vm1 of vm1@a", "vm1@a of -", "vm1@b of -"])
      try lab.run(["check", "--data"]).succeeded()
    }
  }

  @Test func `are what a throwaway of them stays one of`() throws {
    try Lab.run(.served) { lab in
      let path = lab.socketPath ?? ""
      try lab.write("vm1", [(0, 4096, 1)])
      let old = try NBDClient(socketPath: path, exportName: "vm1+trial")
      #expect(try lab.run(["list", "--type", "throwaway"]).standardOutput.contains(#/vm1\+trial .* vm1\n/#))
      try lab.run(["rename", "vm1", "vm0"]).succeeded()
      #expect(try lab.run(["list", "--type", "throwaway"]).standardOutput.contains(#/vm1\+trial .* vm0\n/#))
      // Who comes while nothing else has the name shares it, and who comes later means the new volume.
      let second = try NBDClient(socketPath: path, exportName: "vm1+trial")
      #expect(try second.read(1, at: 0) == [1])
      try lab.run(["create", "--volume", "vm1", "--size", "64M"]).succeeded()
      let new = try NBDClient(socketPath: path, exportName: "vm1+trial")
      #expect(try new.read(1, at: 0) == [0] && old.read(1, at: 0) == [1])
      let third = try NBDClient(socketPath: path, exportName: "vm1+trial")
      try third.write([7], at: 0)
      try third.flush()
      #expect(try new.read(1, at: 0) == [7] && second.read(1, at: 0) == [1])
      try lab.run(["promote", "vm1+trial", "kept"]).refused(1, naming: ["vm1+trial"])
      for client in [old, second, new, third] { try client.disconnect() }
    }
  }
}
