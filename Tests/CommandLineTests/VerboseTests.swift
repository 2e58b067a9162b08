import NBDTestSupport
import Testing

@Suite struct `The log of a store that a command opens` {
  @Test func `is on standard error with --verbose, and nowhere without`() throws {
    try PrivateDirectory.run { directory in
      let store = directory.file("s")
      try Program.run(["create", store, "--size", "1M"]).succeeded()
      let plain = try Program.run(["info", store]).succeeded()
      #expect(plain.standardError == "")
      let verbose = try Program.run(["info", store, "--verbose"])
      #expect(verbose.status == .exited(0))
      #expect(verbose.standardOutput.hasPrefix(plain.standardOutput.prefix(40)))
      let lines = verbose.standardError.split(separator: "\n")
      #expect(lines.count == 1, "\(lines)")
      #expect(
        lines.first?.wholeMatch(
          of: #/lacuna: info: the store is open \(leftOutWrites=0, milliseconds=\d+, records=0, volumes=0\)/#) != nil,
        "\(lines)")
    }
  }
}
