import Glibc
import NBDTestSupport
import Testing

private let verbs = [
  "info", "list", "map", "diff", "stats", "check", "dump", "create", "resize", "rename", "set", "delete", "snapshot",
  "clone", "rollback", "promote", "trim", "recover", "serve", "stop",
]

@Suite struct `The command line` {
  @Test func `is explained on one screen, with examples for each verb`() throws {
    for arguments in [["--help"], ["help"], []] + verbs.flatMap({ [[$0, "--help"], ["help", $0]] }) {
      let finished = try Program.run(arguments, launcher: ["env", "COLUMNS=80"]).succeeded()
      let lines = finished.standardOutput.split(separator: "\n", omittingEmptySubsequences: false)
      #expect(lines.count <= 41 && lines.allSatisfy { $0.count <= 80 }, "\(finished.standardOutput)")
      let verb = arguments.first { verbs.contains($0) } ?? ""
      #expect(lines.contains { $0.hasPrefix("  lacuna \(verb)") }, "\(finished.standardOutput)")
      // Paragraphs are broken where a line is full, and nowhere else.
      let prose = lines.prefix { !$0.hasPrefix("USAGE:") }
      for (line, next) in zip(prose, prose.dropFirst()) where !line.isEmpty && !line.hasPrefix(" ") {
        let word = next.prefix { $0 != " " }
        #expect(word.isEmpty || line.count + 1 + word.count > 78, "\(line)\n\(next)")
      }
    }
    let help = try Program.run(["--help"]).standardOutput
    for verb in verbs { #expect(help.contains("\n  \(verb) "), "\(verb)") }
  }

  @Test func `tells the version`() throws {
    #expect(try Program.run(["--version"]).succeeded().standardOutput.wholeMatch(of: /\d+\.\d+\.\d+\n/) != nil)
  }

  @Test(
    arguments: [
      (["bogus"], "bogus"), (["bogus", "s"], "snapshot"), (["info"], "lacuna info --help"), (["--bogus"], "bogus"),
      (["info", "s", "--bogus"], "lacuna info --help"), (["info", "s", "a", "b"], "b"), (["snapshot", "s"], "names"),
      (["clone", "s", "a"], "name"), (["create", "s"], "size"), (["create", "s", "--size"], "size"),
      (["resize", "s", "a"], "size"), (["resize", "s", "a", "1X"], "1X"), (["dump", "s", "x"], "'x'"),
      (["dump", "s", "-1"], "block"), (["dump", "s", "18446744073709551616"], "18446744073709551616"),
      (["set", "s", "a"], "--quota"), (["set", "s", "a", "--foo"], "--foo"), (["set", "s", "--foo"], "--foo"),
      (["stats", "s", "--count", "1", "--foo"], "--foo"), (["resize", "s", "a", "-1G", "--foo"], "--foo"),
      (["resize", "s", "-1G"], "size"), (["resize", "s", "a", "-1X"], "-1X"),
      (["set", "s", "--quota", "1G"], "volume"), (["set", "s", "--default"], "volume"),
      (["list", "s", "--type", "disk"], "throwaway"), (["check", "s", "--progress", "some"], "some"),
      (["stats", "s", "--count", "1"], "--watch"), (["stats", "s", "--prometheus", "--watch"], "--watch"),
      (["stats", "s", "--watch", "--interval", "0"], "--interval"),
      (["stats", "s", "--watch", "--count", "0"], "--count"),
      (["serve", "s", "--port", "0"], "65535"), (["serve", "s", "--port", "65536"], "65536"),
      (["serve", "s", "--port", "1", "--socket", "x"], "--socket"), (["serve", "s", "--", "-p", "1"], "-p"),
      (["serve", "s", "--", "-fp1"], "-fp1"), (["serve", "s", "--", "--ip=0"], "--ip=0"),
      (["serve", "s", "--", "--unix", "x"], "--unix"), (["serve", "s", "--", "-U", "x"], "-U"),
    ] as [([String], String)])
  func `that is wrong is refused in one line that says where to read on`(_ arguments: [String], _ named: String) throws
  {
    try Program.run(arguments).refused(64, naming: [named, "--help"], "\(arguments)")
  }

  @Test func `that is wrong is an object for programs`() throws {
    let finished = try Program.run(["list", "s", "--json", "--bogus"])
    #expect(finished.status == .exited(64))
    #expect(finished.standardError.hasPrefix(#"{"error":{"code":"usage","errno":0,"message":""#))
    #expect(finished.standardError.hasSuffix("\"}}\n"))
  }

  @Test(
    arguments: [
      ("1", 1), ("512", 512), ("512B", 512), ("1k", 1024), ("1K", 1024), ("64M", 64 << 20), ("10G", 10 << 30),
      ("10GiB", 10 << 30), ("1T", 1 << 40), ("2P", 2 << 50), ("7E", 7 << 60), ("1.5G", 3 << 29), ("0.5k", 512),
      ("1.999999999999999999999K", 2047), ("0.1M", 104857), ("9223372036854775807", UInt64(Int64.max)),
      ("7.99999999999E", 9223372036843246592),
    ] as [(String, UInt64)])
  func `takes sizes as qemu-img does`(_ text: String, _ byteCount: UInt64) throws {
    try PrivateDirectory.run { directory in
      let store = directory.file("s")
      let finished = try Program.run(["create", store, "--size", text, "--json"])
      #expect(finished.status == .exited(0), "\(finished.standardError)")
      #expect(finished.standardOutput.contains("\"size\" : \(byteCount)\n"), "\(finished.standardOutput)")
      // Of sizes that are no whole sectors one is warned.
      let warnings = finished.standardError.split(separator: "\n")
      #expect(warnings.count == (byteCount % 512 == 0 ? 0 : 1), "\(finished.standardError)")
      #expect(warnings.allSatisfy { $0.hasPrefix("lacuna: warning: ") && $0.contains(" \(byteCount) bytes") })
    }
  }

  @Test(
    arguments: [
      "", " 1", "1 ", "1 G", "-1", "+1", "G", ".5G", "1.G", "1.5", "1.5B", "1,5G", "10X", "10GB", "10KiBs", "1e3",
      "0x10",
      "１０", "16E", "18446744073709551616", "99999999999999999999G", "17179869184G", "1\n",
      "%s",
    ])
  func `refuses what is no size`(_ text: String) throws {
    try PrivateDirectory.run { directory in
      let finished = try Program.run(["create", directory.file("s"), "--size=\(text)"])
      finished.refused(64, naming: ["size"], text)
    }
  }

  @Test(arguments: ["0", "8E", "9223372036854775808"]) func `refuses a size that no disk has`(_ text: String) throws {
    try PrivateDirectory.run { directory in
      let store = directory.file("s")
      try Program.run(["create", store, "--size", text]).refused(1, naming: ["2^63 - 1"], text)
      try Program.run(["create", store, "--size", "1M"]).succeeded()
      try Program.run(["create", store, "--volume", "b", "--size", text]).refused(1, naming: [], text)
      try Program.run(["resize", store, "disk", text, "--yes"]).refused(1, naming: [], text)
    }
  }

  @Test func `resizes by so much, within what fits`() throws {
    try PrivateDirectory.run { directory in
      let store = directory.file("s")
      try Program.run(["create", store, "--size", "1M"]).succeeded()
      try Program.run(["resize", store, "disk", "+0.5M"]).succeeded()
      try Program.run(["resize", store, "disk", "--yes", "--", "-1M"]).succeeded()
      #expect(try Program.run(["info", store, "disk", "--json"]).standardOutput.contains("\"size\" : 524288,"))
      try Program.run(["resize", store, "disk", "--yes", "--", "-1M"]).refused(1, naming: ["disk", "524288"])
      // A size is no option, wherever it stands.
      try Program.run(["resize", store, "disk", "-256K", "--yes"]).succeeded()
      try Program.run(["resize", store, "--yes", "disk", "-128K"]).succeeded()
      #expect(try Program.run(["info", store, "disk", "--json"]).standardOutput.contains("\"size\" : 131072,"))
      try Program.run(["resize", store, "disk", "-1", "--yes"]).refused(1, naming: ["4096"])
      #expect(try Program.run(["resize", store, "disk", "+1"]).standardError.contains("no multiple of 512"))
      try Program.run(["resize", store, "disk", "+15E"]).refused(1, naming: [])
      try Program.run(["resize", store, "disk", "+16383P"]).refused(1, naming: [])
    }
  }

  @Test func `makes a store with the block size and the journal that were asked for, and only a new one`() throws {
    try PrivateDirectory.run { directory in
      let store = directory.file("s")
      try Program.run(["create", store, "--size", "1T", "--block-size", "64K", "--journal", "1M", "--volume", "a/b"])
        .succeeded()
      let info = try Program.run(["info", store, "--json"]).succeeded().standardOutput
      #expect(info.contains("\"blockSize\" : 65536,") && info.contains("\"journalSize\" : 1048576,"), "\(info)")
      #expect(info.contains("\"defaultVolume\" : \"a/b\","), "\(info)")
      try Program.run(["create", store, "--size", "1T", "--block-size", "64K", "--volume", "b"])
        .refused(1, naming: [store, "--block-size"])
      try Program.run(["create", store, "--size", "1T"]).refused(1, naming: [store, "--volume"])
      for wrong in [
        ["--block-size", "512"], ["--block-size", "1K"], ["--block-size", "2K"], ["--block-size", "5000"],
        ["--block-size", "128K"], ["--block-size", "0"], ["--journal", "100000"], ["--journal", "0"],
      ] {
        let finished = try Program.run(["create", directory.file("t"), "--size", "1M"] + wrong)
        finished.refused(1, naming: wrong[0] == "--block-size" ? ["4096", "65536"] : [], "\(wrong)")
        #expect(access(directory.file("t"), F_OK) != 0)
      }
    }
  }
}
