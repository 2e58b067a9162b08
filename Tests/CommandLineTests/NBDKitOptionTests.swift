import NBDTestSupport
import Testing

@Suite struct `Options of nbdkit behind --` {
  /// Those that `lacuna serve` refuses: where to listen, who runs it, which process it is, and what it runs.
  private static let refused: Set = [
    "-4", "-6", "-g", "-i", "-o", "-P", "-p", "-s", "-u", "-U", "--ipv4-only", "--ipv6-only", "--group", "--ip-addr",
    "--ipaddr", "--old-style", "--oldstyle", "--pid-file", "--pidfile", "--port", "--run", "--single", "--stdin",
    "--unix", "--user", "--vsock",
  ]
  /// Those that change nothing of it.
  private static let allowed: Set = [
    "-D", "-e", "-f", "-n", "-r", "-t", "-v", "-V", "--debug", "--dump-config", "--dump-plugin", "--exit-with-parent",
    "--export", "--export-name", "--exportname", "--filter", "--foreground", "--no-fork", "--help", "--log",
    "--mask-handshake", "--new-style", "--newstyle", "--no-sr", "--read-only", "--readonly", "--selinux-label",
    "--swap",
    "--threads", "--tls", "--tls-certificates", "--tls-psk", "--tls-verify-peer", "--verbose", "--version",
  ]

  private func expect(_ option: String, isRefused: Bool, _ store: String) throws {
    let finished = try Program.run(
      ["serve", store, "--dry-run", "--", option], launcher: ["env", "LACUNA_PLUGIN=\(try Program.plugin())"])
    if isRefused {
      finished.refused(64, naming: ["'\(option)'", "cannot be passed to nbdkit here"], option)
    } else {
      #expect(finished.status == .exited(0) && finished.standardOutput.contains(option), "\(option)")
    }
  }

  // An option that a later nbdkit has is to be looked at: it may choose another place to listen.
  @Test func `are each either refused or known to be harmless, as this machine's nbdkit has them`() throws {
    try PrivateDirectory.run { directory in
      let store = directory.file("s")
      try Program.run(["create", store, "--size", "1M"]).succeeded()
      var options: [Substring] = []
      for list in ["--long-options", "--short-options"] {
        options += try FinishedCommand.run(["nbdkit", list]).standardOutput.split(separator: "\n")
      }
      #expect(options.count >= 40)
      // The help mentions no others.
      let help = try FinishedCommand.run(["nbdkit", "--help"]).standardOutput
      let mentioned = help.matches(of: /(?:^|[\[| ])(--?[a-zA-Z0-9][a-z0-9-]*)/).map(\.1)
      #expect(mentioned.count >= 40 && mentioned.allSatisfy { options.contains($0) }, "\(mentioned)")
      for option in options.map(String.init) {
        let isRefused = Self.refused.contains(option)
        #expect(isRefused != Self.allowed.contains(option), "\(option) is new to this test")
        try expect(option, isRefused: isRefused, store)
      }
    }
  }

  @Test(
    arguments: [
      ("-r4", true), ("-vf6", true), ("-fp10809", true), ("-nUx", true), ("-rs", true), ("-vo", true), ("-i::", true),
      ("--ipv4", true), ("--ipv6", true), ("--po=1", true), ("--un=x", true), ("--pid=x", true), ("--std", true),
      ("--old-", true), ("--pid-f=x", true),
      // A value that has these letters in it.
      ("-e4", false), ("-t6", false), ("-Dnbdkit.4=6", false), ("-fep", false), ("--log=stderr", false),
      ("--verb", false),
    ] as [(String, Bool)])
  func `are known where they are shortened, and where several share a dash`(_ option: String, _ isRefused: Bool) throws
  {
    try PrivateDirectory.run { directory in
      let store = directory.file("s")
      try Program.run(["create", store, "--size", "1M"]).succeeded()
      try expect(option, isRefused: isRefused, store)
    }
  }
}
