import Glibc
import NBDTestSupport
import Testing

@Suite struct `What destroys data` {
  /// The verbs that do, with how the question begins.
  private static let verbs: [(arguments: [String], question: String)] = [
    (["delete", "vm1"], "Deleting vm1"),
    (["delete", "vm1", "vm1@a"], "Deleting vm1, vm1@a"),
    (["rollback", "vm1@a"], "Rolling vm1 back to vm1@a"),
    (["resize", "vm1", "1M"], "Making vm1 smaller"),
  ]

  private func list(_ lab: Lab) throws -> String { try lab.run(["list", "--json"]).succeeded().standardOutput }

  @Test(arguments: Way.allCases) func `is not done where nobody can be asked`(_ way: Way) throws {
    try Lab.run(way) { lab in
      try lab.run(["snapshot", "vm1@a"]).succeeded()
      let before = try list(lab)
      for verb in Self.verbs {
        try lab.run(verb.arguments).refused(3, naming: [verb.question, "--yes"], "\(verb)")
      }
      #expect(try list(lab) == before)
    }
  }

  @Test func `is done after a yes, and after nothing else`() throws {
    for verb in Self.verbs {
      try Lab.run(.free) { lab in
        try lab.run(["snapshot", "vm1@a"]).succeeded()
        let before = try list(lab)
        for answer in ["n", "", "no", "yess", "\u{4}"] {
          let shown = try answered(answer, lab, verb.arguments)
          #expect(shown.status == .exited(3), "\(verb) \(answer): \(shown.standardOutput)")
          #expect(shown.standardOutput.contains("\(verb.question)"), "\(shown.standardOutput)")
          #expect(shown.standardOutput.contains("[y/N]"), "\(shown.standardOutput)")
          #expect(try list(lab) == before)
        }
        let shown = try answered("y", lab, verb.arguments)
        #expect(shown.status == .exited(0), "\(verb): \(shown.standardOutput)")
        if verb.arguments[0] != "rollback" { #expect(try list(lab) != before) }
      }
    }
  }

  @Test func `is not asked for what destroys nothing`() throws {
    try Lab.run(.free) { lab in
      try lab.run(["resize", "vm1", "128M"]).succeeded()
      try lab.run(["resize", "vm1", "128M"]).succeeded()
      try lab.run(["snapshot", "vm1@a"]).succeeded()
      try lab.run(["delete", "vm1@a", "--dry-run"]).succeeded()
    }
  }

  /// Runs a verb on a terminal, where a person types this line.
  private func answered(_ answer: String, _ lab: Lab, _ arguments: [String]) throws -> FinishedCommand {
    let line = "\(try Program.path()) \(arguments[0]) \(lab.store) \(arguments.dropFirst().joined(separator: " "))"
    return try FinishedCommand.run(["sh", "-c", "(sleep 0.3; printf '\(answer)\\n') | script -qec '\(line)' /dev/null"])
  }
}
