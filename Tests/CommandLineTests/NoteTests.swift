import NBDTestSupport
import Testing

/// What verbs say of their effects that one may not expect.
@Suite struct `A verb that has done what it was asked` {
  @Test(arguments: Way.allCases) func `says which snapshots stay, and that there is no default volume`(_ way: Way)
    throws
  {
    try Lab.run(way) { lab in
      try lab.run(["create", "--volume", "vm2", "--size", "1M"]).succeeded()
      for name in ["vm1@a", "vm1@b", "vm1@c", "vm1@d", "vm2@a"] { try lab.run(["snapshot", name]).succeeded() }
      let plan = try lab.run(["delete", "vm1", "vm1@d", "--dry-run"]).succeeded().standardOutput
      #expect(
        plan.hasSuffix(
          """
          3 snapshots named for vm1 would stay: vm1@a, vm1@b, vm1@c
          vm1 is the default volume; there would be none then ('lacuna set \(lab.store) NAME --default' makes one of another)

          """), "\(plan)")
      #expect(
        try lab.run(["delete", "vm1", "--yes"]).succeeded().standardOutput == """
          Deleted vm1
          4 snapshots named for vm1 stay: vm1@a, vm1@b, vm1@c and 1 more
          vm1 was the default volume; there is none now ('lacuna set \(lab.store) NAME --default' makes one of another)

          """)
      #expect(try lab.run(["delete", "vm1@a", "--yes"]).succeeded().standardOutput == "Deleted vm1@a\n")
      try lab.run(["set", "vm2", "--default"]).succeeded()
      #expect(
        try lab.run(["delete", "vm2", "--snapshots", "--yes"]).succeeded().standardOutput == """
          Deleted vm2
          Deleted vm2@a
          vm2 was the default volume; there is none now ('lacuna set \(lab.store) NAME --default' makes one of another)

          """)
    }
  }

  @Test func `says who keeps the old size`() throws {
    try Lab.run(.served) { lab in
      let client = try NBDClient(socketPath: try #require(lab.socketPath), exportName: "vm1")
      let text = try lab.run(["resize", "vm1", "+1M"]).succeeded().standardOutput
      #expect(text.contains("1 client of it keep"), "\(text)")
      try client.disconnect()
    }
  }

  @Test func `warns of a server that has the place of a store that was moved`() throws {
    try Lab.run(.served) { lab in
      let moved = lab.directory.file("moved")
      #expect(try FinishedCommand.run(["mv", lab.store, moved]).status == .exited(0))
      let made = try lab.run(["create", "--size", "1M"])
      #expect(made.status == .exited(0) && made.standardError.contains("answers on \(lab.store).sock"))
      // The served one answers as before.
      try Program.run(["info", moved, "--control", "\(lab.store).sock"]).succeeded()
    }
  }
}
