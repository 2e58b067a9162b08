import NBDTestSupport
import Testing

@Suite struct `Progress` {
  @Test(arguments: Way.allCases) func `is a line of JSON each for programs, and ends complete`(_ way: Way) throws {
    try Lab.run(way) { lab in
      try lab.write("vm1", [(0, 4 << 20, 1)])
      let finished = try lab.run(["check", "--data", "--progress=json"])
      #expect(finished.status == .exited(0), "\(finished.standardError)")
      let lines = finished.standardError.split(separator: "\n")
      #expect(!lines.isEmpty)
      for line in lines {
        #expect(
          line.wholeMatch(of: /\{"progress":\{"done":\d+,"phase":"[a-z ]+"(,"total":\d+)?,"unit":"\w+"\}\}/) != nil,
          "\(line)")
      }
    }
  }

  @Test func `is a bar on a terminal alone`() throws {
    try Lab.run(.free) { lab in
      try lab.write("vm1", [(0, 4 << 20, 1)])
      #expect(try lab.run(["check", "--data"]).succeeded().standardOutput.contains("Nothing is wrong"))
      let line = "\(try Program.path()) check \(lab.store) --data --progress=bar"
      let shown = try FinishedCommand.run(["script", "-qec", line, "/dev/null"])
      #expect(shown.status == .exited(0), "\(shown.standardOutput)")
      #expect(shown.standardOutput.contains(/\r[a-z ]+ \[[=> ]+\] +\d+%/), "\(shown.standardOutput)")
      // What the bar leaves behind is an empty line, and then comes the result.
      #expect(shown.standardOutput.split(separator: "\u{1B}[K").last?.hasPrefix("Nothing is wrong") == true)
    }
  }
}
