import Glibc
import NBDTestSupport
import Testing

/// What `lacuna serve` needs for TLS, and what it refuses; Tests/Scripted/tls.sh has real clients.
@Suite struct `Serving with TLS` {
  private static let key = "alice:00112233445566778899aabbccddeeff\n"

  /// A store `s`, a folder `tls` with files of these names, and a file `keys`.
  private func run(
    _ files: [String] = ["ca-cert.pem", "server-cert.pem", "server-key.pem"], _ body: (Lab) throws -> Void
  )
    throws
  {
    try PrivateDirectory.run { directory in
      let lab = Lab(directory: directory)
      try Program.run(["create", lab.store, "--size", "1M"]).succeeded()
      mkdir(lab.folder, 0o700)
      for name in files { try lab.write("x", to: "tls/\(name)") }
      try lab.write(Self.key, to: "keys")
      try body(lab)
    }
  }

  private struct Lab {
    let directory: PrivateDirectory
    var store: String { directory.file("s") }
    var folder: String { directory.file("tls") }
    var keys: String { directory.file("keys") }

    func write(_ text: String, to name: String, mode: mode_t = 0o600) throws {
      let path = directory.file(name)
      let script = #"printf %s "$1" >"$2" && chmod "$3" "$2""#
      let finished = try FinishedCommand.run(["sh", "-c", script, "-", text, path, String(mode, radix: 8)])
      #expect(finished.status == .exited(0), "\(finished.standardError)")
    }

    /// What `lacuna serve` would have nbdkit do.
    func serve(_ arguments: [String], launcher: [String] = []) throws -> FinishedCommand {
      try Program.run(
        ["serve", store, "--dry-run"] + arguments,
        launcher: launcher + ["env", "LACUNA_PLUGIN=\(try Program.plugin())"])
    }
  }

  @Test func `is required of all clients, whose certificates are looked at`() throws {
    try run { lab in
      let line = try lab.serve(["--tls", lab.folder]).succeeded().standardOutput
      #expect(line.contains(" --tls=require --tls-certificates=\(lab.folder) --tls-verify-peer "), "\(line)")
      let open = try lab.serve(["--tls", lab.folder, "--anyone"]).succeeded().standardOutput
      #expect(open.contains(" --tls=require --tls-certificates=\(lab.folder) ") && !open.contains("peer"), "\(open)")
      let keys = try lab.serve(["--tls", lab.keys, "--port", "1"]).succeeded().standardOutput
      #expect(keys.contains(" --tls=require --tls-psk=\(lab.keys) ") && !keys.contains("peer"), "\(keys)")
    }
  }

  @Test func `or a yes to all users of the machine is needed for a port`() throws {
    try run { lab in
      let finished = try lab.serve(["--port", "1"])
      finished.refused(64, naming: ["every user of this machine", "read and write all volumes", "--tls", "--anyone"])
      try lab.serve(["--port", "1", "--read-only"]).refused(64, naming: ["could use a port to read all volumes"])
      try lab.serve(["--port", "1", "--allow", "disk"]).refused(64, naming: ["read and write what --allow names"])
      try lab.serve(["--port", "1", "--", "--tls=on"]).refused(64, naming: ["--tls"])
      for arguments in [["--anyone"], ["--tls", lab.folder], ["--", "--tls=require"], ["--", "--tls=REQUIRED"]] {
        try lab.serve(["--port", "1"] + arguments).succeeded()
      }
      try lab.serve(["--anyone"]).refused(64, naming: ["--anyone", "--port"])
      try lab.serve(["--tls", lab.keys, "--anyone"]).refused(1, naming: ["--anyone", "key"])
      try lab.serve(["--tls", lab.keys, "--", "--tls-verify-peer"]).refused(64, naming: ["--tls-verify-peer"])
    }
  }

  @Test(arguments: ["ca-cert.pem", "server-cert.pem", "server-key.pem"])
  func `says which file is missing`(_ name: String) throws {
    try run(["ca-cert.pem", "server-cert.pem", "server-key.pem"].filter { $0 != name }) { lab in
      try lab.serve(["--tls", lab.folder]).refused(
        1, naming: ["\(lab.folder)/\(name): No such file", "server-key.pem"])
      try lab.serve(["--tls", lab.directory.file("none")]).refused(1, naming: ["none: No such file", "psktool"])
    }
  }

  @Test(arguments: [0o604, 0o602, 0o620, 0o644, 0o666] as [mode_t])
  func `refuses a secret that others may read or change`(
    _ mode: mode_t
  ) throws {
    try run { lab in
      let text = "(mode \(String(mode, radix: 8)))"
      try lab.write("x", to: "tls/server-key.pem", mode: mode)
      try lab.serve(["--tls", lab.folder]).refused(1, naming: ["\(lab.folder)/server-key.pem", text, "chmod 600"])
      try lab.write(Self.key, to: "keys", mode: mode)
      try lab.serve(["--tls", lab.keys]).refused(1, naming: [lab.keys, text, "chmod 600"])
      // A group may be given it, as that of a service.
      try lab.write(Self.key, to: "keys", mode: 0o640)
      try lab.serve(["--tls", lab.keys]).succeeded()
    }
  }

  @Test(arguments: [
    ("", "there is no key"), ("\n# none\n", "there is no key"), ("alice\n", "line 1"), ("alice:\n", "line 1"),
    (":00\n", "line 1"), ("alice:0\n", "line 1"), ("alice:xy\n", "line 1"), ("a:00\nb:00:00\n", "line 2"),
    ("-----BEGIN EC PRIVATE KEY-----\n", "line 1"),
  ]) func `refuses a file without keys`(_ text: String, _ reason: String) throws {
    try run { lab in
      try lab.write(text, to: "keys")
      try lab.serve(["--tls", lab.keys]).refused(1, naming: [lab.keys, reason, "psktool"])
    }
  }

  // A service manager's sockets: who may connect to a Unix socket its mode says, to others everybody who reaches them.
  @Test func `or a yes is needed for a port that was passed in`() throws {
    try run { lab in
      let script = """
        import fcntl, os, socket, sys
        passed = socket.create_server(("127.0.0.1", 0))
        os.dup2(fcntl.fcntl(passed.detach(), fcntl.F_DUPFD, 100), 3)
        os.environ["LISTEN_FDS"], os.environ["LISTEN_PID"] = "1", str(os.getpid())
        os.execvp(sys.argv[1], sys.argv[1:])
        """
      let passing = ["python3", "-c", script]
      try lab.serve([], launcher: passing).refused(1, naming: ["everybody who reaches it", "--tls", "--anyone"])
      for arguments in [["--anyone"], ["--tls", lab.keys], ["--", "--tls=require", "--tls-psk=\(lab.keys)"]] {
        try lab.serve(arguments, launcher: passing).succeeded()
      }
    }
  }

  @Test(arguments: ["0", "-1", "x", "10001"]) func `takes a number of clients`(_ number: String) throws {
    try run { lab in
      try lab.serve(["--clients", number]).refused(64, naming: ["--clients"])
      let line = try lab.serve(["--clients", "7"]).succeeded().standardOutput
      #expect(line.contains(" clients=7 "), "\(line)")
    }
  }
}
