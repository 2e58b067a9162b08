import Glibc
import NBDTestSupport
import Testing

@Suite struct `Serving` {
  /// Runs `lacuna serve` until `body` ends, and expects that it then ends well.
  private func serve(
    _ arguments: [String], launcher: [String] = [], in directory: PrivateDirectory, socket: String,
    _ body: () throws -> Void
  ) throws {
    let process = try ChildProcess(
      launcher + ["env", "LACUNA_PLUGIN=\(try Program.plugin())", try Program.path(), "serve", directory.file("s")]
        + arguments,
      standardOutput: directory.file("out"), standardError: directory.file("err"), lifetimeSecondsMax: 60)
    defer { _ = process.waitForEnd(seconds: 0) }
    let listens = Deadline(secondsFromNow: 20).wait {
      process.exitStatus != nil
        || directory.text(of: "err").contains("Serving ") && (try? NBDClient(socketPath: socket)) != nil
    }
    try #require(listens && process.exitStatus == nil, "\(directory.text(of: "err"))")
    try body()
    process.send(SIGTERM)
    #expect(process.waitForEnd(seconds: 20) == .exited(0), "\(directory.text(of: "err"))")
  }

  /// A program that runs another one in its place, as a service manager does: with sockets from descriptor 3 on.
  ///
  /// - Parameters:
  ///   - pid: LISTEN_PID; nil for that of the process itself.
  ///   - listens: whether the sockets are those of a server.
  private func passing(_ paths: [String], count: String, pid: String? = nil, listens: Bool = true) -> [String] {
    let script = """
      import fcntl, os, socket, sys
      count, pid, listens, paths, command = sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4].split(), sys.argv[5:]
      for number, path in enumerate(paths):
        passed = socket.socket(socket.AF_UNIX)
        passed.bind(path)
        if listens == "true": passed.listen()
        # Out of the way of the numbers that are passed on, and not to be closed by Python.
        os.dup2(fcntl.fcntl(passed.detach(), fcntl.F_DUPFD, 100), 3 + number)
      os.environ["LISTEN_FDS"] = count
      os.environ["LISTEN_PID"] = pid or str(os.getpid())
      os.execvp(command[0], command)
      """
    return ["python3", "-c", script, count, pid ?? "", "\(listens)", paths.joined(separator: " ")]
  }

  private func makeStore(in directory: PrivateDirectory) throws {
    try Program.run(["create", directory.file("s"), "--size", "1M"]).succeeded()
  }

  @Test func `listens beside the store, says where, and takes the place of a server that was killed`() throws {
    try PrivateDirectory.run { directory in
      try makeStore(in: directory)
      let socket = directory.file("s.nbd")
      let uri = "nbd+unix:///?socket=\(socket)"
      try serve([], in: directory, socket: socket) {
        #expect(directory.text(of: "err").contains(uri))
        #expect(try FinishedCommand.run(["nbdinfo", "--size", uri]).standardOutput == "1048576\n")
        var status = stat()
        #expect(stat(socket, &status) == 0 && status.st_mode & 0o022 == 0)
        // Another one is not let in.
        try Program.run(["serve", directory.file("s")]).refused(1, naming: [socket, "--socket"])
      }
      // What a killed server leaves: a socket that nobody listens on.
      let left = "import socket, sys; socket.socket(socket.AF_UNIX).bind(sys.argv[1])"
      unlink(socket)
      #expect(try FinishedCommand.run(["python3", "-c", left, socket]).status == .exited(0))
      try serve([], in: directory, socket: socket) {}
      unlink(socket)
      #expect(try FinishedCommand.run(["touch", socket]).status == .exited(0))
      try Program.run(["serve", directory.file("s")]).refused(1, naming: [socket, "no socket"])
      #expect(access(socket, F_OK) == 0)
    }
  }

  @Test func `neither takes a live socket away, whatever its name, nor waits for one whose queue is full`() throws {
    try PrivateDirectory.run { directory in
      try makeStore(in: directory)
      let (socket, flag) = (directory.file(#"a\b"#), directory.file("ready"))
      let program = """
        import socket, sys, time
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(sys.argv[1])
        listener.listen(0)
        clients = []
        while True:
            clients.append(socket.socket(socket.AF_UNIX))
            clients[-1].setblocking(False)
            try:
                clients[-1].connect(sys.argv[1])
            except BlockingIOError:
                break
        open(sys.argv[2], "w").close()
        time.sleep(60)
        """
      let process = try ChildProcess(
        ["python3", "-c", program, socket, flag], standardOutput: directory.file("out"),
        standardError: directory.file("err"), lifetimeSecondsMax: 60)
      defer {
        process.send(SIGKILL)
        _ = process.waitForEnd(seconds: 10)
      }
      #expect(Deadline(secondsFromNow: 20).wait { access(flag, F_OK) == 0 }, "\(directory.text(of: "err"))")
      try Program.run(["serve", directory.file("s"), "--socket", socket], secondsMax: 20).refused(
        1, naming: [socket, "--socket"])
      let control = try Program.run(
        ["serve", directory.file("s"), "--socket", directory.file("free"), "--control", socket],
        launcher: ["env", "LACUNA_PLUGIN=\(try Program.plugin())"], secondsMax: 20)
      #expect(control.status == .exited(1))
      #expect(
        control.standardError.contains("another server listens on the control socket"), "\(control.standardError)")
      try Program.run(["info", directory.file("s"), "--control", socket], secondsMax: 20).refused(
        1, naming: [socket, "takes no more clients"])
      #expect(access(socket, F_OK) == 0)
    }
  }

  @Test func `passes on what nbdkit and the plugin are to know`() throws {
    try PrivateDirectory.run { directory in
      try makeStore(in: directory)
      let socket = directory.file("my socket")
      let arguments = [
        "--read-only", "--socket", socket, "--", "--filter=log", "logfile=\(directory.file("log"))", "cache=1M",
      ]
      try serve(arguments, in: directory, socket: socket) {
        let client = try NBDClient(socketPath: socket)
        #expect(try client.isReadOnly())
        try client.disconnect()
        #expect(try Program.run(["info", directory.file("s")]).succeeded().standardOutput.contains("served by:"))
      }
      #expect(!directory.text(of: "log").isEmpty)
    }
  }

  @Test func `comes back with --background once it serves, and says what is needed to use and to end it`() throws {
    try PrivateDirectory.run { directory in
      try makeStore(in: directory)
      let finished = try Program.run(
        ["serve", directory.file("s"), "--background", "--pidfile", directory.file("pid")],
        launcher: ["env", "LACUNA_PLUGIN=\(try Program.plugin())"]
      ).succeeded()
      let pid = try #require(Int32(directory.text(of: "pid").filter(\.isNumber)))
      defer { kill(pid, SIGTERM) }
      let uri = "nbd+unix:///?socket=\(directory.file("s.nbd"))"
      #expect(
        finished.standardOutput == """
          serving:   \(directory.file("s"))
          uri:       \(uri)
          process:   \(pid)
          log:       \(directory.file("s.log"))
          to end it: lacuna stop \(directory.file("s"))

          """)
      #expect(try FinishedCommand.run(["nbdinfo", "--size", uri]).standardOutput == "1048576\n")
      #expect(directory.text(of: "s.log").contains(uri))
      kill(pid, SIGTERM)
      #expect(Deadline(secondsFromNow: 20).wait { access(directory.file("pid"), F_OK) != 0 })
      #expect(access(directory.file("s.nbd"), F_OK) != 0)
    }
  }

  @Test func `says with --background why it does not serve, and leaves nothing`() throws {
    try PrivateDirectory.run { directory in
      try makeStore(in: directory)
      let launcher = ["env", "LACUNA_PLUGIN=\(try Program.plugin())"]
      let unknown = try Program.run(
        ["serve", directory.file("s"), "--background", "--", "limt=1G"], launcher: launcher)
      #expect(unknown.status == .exited(1) && unknown.standardOutput.isEmpty)
      #expect(unknown.standardError.hasPrefix("nbdkit: error: unknown parameter 'limt'"), "\(unknown.standardError)")
      for name in ["s.nbd", "s.log", "s.sock"] { #expect(access(directory.file(name), F_OK) != 0, "\(name)") }
      try Program.run(
        ["serve", directory.file("s"), "--background", "--log", directory.file("no/log")], launcher: launcher
      ).refused(1, naming: [directory.file("no/log"), "--log"])
      #expect(access(directory.file("s.nbd"), F_OK) != 0)
      // While another one serves it, at another socket.
      try serve([], in: directory, socket: directory.file("s.nbd")) {
        let second = try Program.run(
          ["serve", directory.file("s"), "--background", "--socket", directory.file("other")], launcher: launcher)
        #expect(second.status == .exited(1) && second.standardOutput.isEmpty)
        #expect(second.standardError.contains("is in use by process"), "\(second.standardError)")
        #expect(access(directory.file("other"), F_OK) != 0)
      }
    }
  }

  @Test func `serves what the plugin's parameters say, where no store is given`() throws {
    try PrivateDirectory.run { directory in
      let finished = try Program.run(
        ["serve", "--background", "--pidfile", directory.file("pid"), "--", "memory=2M"],
        launcher: ["env", "LACUNA_PLUGIN=\(try Program.plugin())", "XDG_RUNTIME_DIR=\(directory.path)"]
      ).succeeded()
      let pid = try #require(Int32(directory.text(of: "pid").filter(\.isNumber)))
      defer { kill(pid, SIGTERM) }
      let uri = finished.standardOutput.split(separator: "\n").first { $0.hasPrefix("uri: ") }?.split(separator: " ")
        .last
      let size = try FinishedCommand.run(["nbdinfo", "--size", uri.map(String.init) ?? ""])
      #expect(size.standardOutput == "2097152\n", "\(size.standardError)")
      kill(pid, SIGTERM)
      let list = { (try? FinishedCommand.run(["ls", directory.path]).standardOutput) ?? "?" }
      #expect(Deadline(secondsFromNow: 20).wait { list().isEmpty }, "\(list())")
    }
  }

  @Test func `refuses options of nbdkit that are its own business`() throws {
    try PrivateDirectory.run { directory in
      try makeStore(in: directory)
      let own = [
        ("-p10809", "--port"), ("-fU/x", "--socket"), ("--ip=::", "--socket"), ("--pidfile=x", "--pidfile"),
        ("-Px", "--pidfile"),
        ("--run=true", "beside"), ("-unobody", "runuser"), ("--group", "runuser"),
      ]
      for (option, advice) in own {
        try Program.run(["serve", directory.file("s"), "--", option]).refused(64, naming: [option, advice])
      }
      try Program.run(["serve"]).refused(64, naming: ["store"])
      try Program.run(["serve", directory.file("s"), "--log", "x"]).refused(64, naming: ["--log", "--background"])
    }
  }

  @Test func `never listens on other addresses than this machine's own`() throws {
    try PrivateDirectory.run { directory in
      try makeStore(in: directory)
      let launcher = ["env", "LACUNA_PLUGIN=\(try Program.plugin())"]
      let line = try Program.run(
        ["serve", directory.file("s"), "--port", "10809", "--anyone", "--dry-run"], launcher: launcher
      )
      .succeeded().standardOutput
      #expect(line.hasSuffix(" --ipaddr 127.0.0.1 --port 10809\n"), "\(line)")
      let other = try Program.run(["serve", directory.file("s"), "-n", "--", "-v", "cache=1M"], launcher: launcher)
        .succeeded().standardOutput
      #expect(other.hasSuffix(" -v cache=1M --unix \(directory.file("s.nbd"))\n"), "\(other)")
    }
  }

  @Test func `says what is missing`() throws {
    try PrivateDirectory.run { directory in
      try makeStore(in: directory)
      let arguments = ["serve", directory.file("s")]
      try Program.run(arguments, launcher: ["env", "PATH=/nowhere"]).refused(1, naming: ["nbdkit", "PATH", "install"])
      try Program.run(arguments, launcher: ["env", "LACUNA_PLUGIN=/nowhere/plugin.so"])
        .refused(1, naming: ["LACUNA_PLUGIN", "/nowhere/plugin.so"])
      let long = directory.file(String(repeating: "x", count: 100))
      try Program.run(arguments + ["--socket", long]).refused(1, naming: [long, "107", "--socket"])
      // A program that stands alone, with no plugin where nbdkit has them.
      let alone = directory.file("lacuna")
      #expect(try FinishedCommand.run(["cp", try Program.path(), alone]).status == .exited(0))
      let fake = directory.file("nbdkit")
      let script = "printf '#!/bin/sh\\necho plugindir=/nowhere\\n' > \(fake); chmod +x \(fake)"
      #expect(try FinishedCommand.run(["sh", "-c", script]).status == .exited(0))
      let path = "PATH=\(directory.path):/usr/bin:/bin"
      try FinishedCommand.run(["env", "-u", "LACUNA_PLUGIN", path, alone] + arguments)
        .refused(1, naming: ["/nowhere/nbdkit-lacuna-plugin.so", "scripts/install"])
    }
  }

  @Test func `serves the sockets that a service manager passes in, and makes none`() throws {
    try PrivateDirectory.run { directory in
      try makeStore(in: directory)
      let sockets = [directory.file("a"), directory.file("b")]
      try serve([], launcher: passing(sockets, count: "2"), in: directory, socket: sockets[0]) {
        for socket in sockets {
          let size = try FinishedCommand.run(["nbdinfo", "--size", "nbd+unix:///?socket=\(socket)"])
          #expect(size.standardOutput == "1048576\n", "\(size.standardError)")
        }
        #expect(directory.text(of: "err") == "Serving at the 2 sockets that were passed in\n")
        #expect(access(directory.file("s.nbd"), F_OK) != 0)
        // It has become nbdkit, and can be asked over the control socket.
        #expect(try Program.run(["info", directory.file("s")]).succeeded().standardOutput.contains("served by:"))
        #expect(try Program.run(["snapshot", directory.file("s"), "disk@a"]).succeeded().status == .exited(0))
      }
      unlink(sockets[0])
      let line = try Program.run(
        ["serve", directory.file("s"), "-n"],
        launcher: passing([sockets[0]], count: "1") + ["env", "LACUNA_PLUGIN=\(try Program.plugin())"]
      ).succeeded().standardOutput
      #expect(line.hasSuffix(" create=false\n"), "\(line)")
    }
  }

  @Test func `refuses to listen elsewhere as well, where sockets are passed in`() throws {
    try PrivateDirectory.run { directory in
      try makeStore(in: directory)
      for options in [["--socket", directory.file("x")], ["--port", "10809", "--anyone"], ["--background"]] {
        unlink(directory.file("a"))
        try Program.run(
          ["serve", directory.file("s")] + options, launcher: passing([directory.file("a")], count: "1")
        ).refused(64, naming: [options[0], "LISTEN_FDS"])
      }
    }
  }

  @Test func `refuses sockets that are not what LISTEN_FDS says, and ignores those of another process`() throws {
    try PrivateDirectory.run { directory in
      try makeStore(in: directory)
      let socket = directory.file("a")
      // nbdkit takes some of these for no sockets at all, and would then listen on every address.
      for count in ["0", "2", "x", "-1", "01", "0x1", "1 ", "4294967297", "2147483647"] {
        unlink(socket)
        try Program.run(["serve", directory.file("s")], launcher: passing([socket], count: count))
          .refused(1, naming: ["LISTEN_FDS", count])
      }
      unlink(socket)
      try Program.run(["serve", directory.file("s")], launcher: passing([socket], count: "1", listens: false))
        .refused(1, naming: ["LISTEN_FDS", "descriptor 3", "Accept=no"])
      unlink(socket)
      let launcher = passing([socket], count: "1", pid: "1") + ["env", "LACUNA_PLUGIN=\(try Program.plugin())"]
      let line = try Program.run(["serve", directory.file("s"), "-n"], launcher: launcher).succeeded().standardOutput
      #expect(line.hasSuffix(" --unix \(directory.file("s.nbd"))\n"), "\(line)")
    }
  }
}
