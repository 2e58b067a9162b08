import Glibc
import LacunaTestSupport
import NBDTestSupport
import Testing

@testable import Lacuna

@Suite struct `Who holds a store's lock` {
  /// A process that holds a lock of a file until the end of `body`: F_OFD_SETLK of fcntl(2), or flock(2).
  private func withHolder(_ kind: String, _ body: (FoundFile, String) throws -> Void) throws {
    try PrivateDirectory.run { directory in
      let (path, flag) = (directory.file("s.lacuna"), directory.file("ready"))
      #expect(try FinishedCommand.run(["touch", path]).status == .exited(0))
      let program = """
        import fcntl, struct, sys, time
        file = open(sys.argv[1], "r+b")
        kind = {"reading": fcntl.F_RDLCK, "writing": fcntl.F_WRLCK}.get(sys.argv[3])
        if kind is None:
            fcntl.flock(file, fcntl.LOCK_EX)
        else:
            fcntl.fcntl(file, 37, struct.pack("hhqqi4x", kind, 0, 0, 0, 0))
        open(sys.argv[2], "w").close()
        time.sleep(60)
        """
      let process = try ChildProcess(
        ["python3", "-c", program, path, flag, kind], standardOutput: directory.file("out"),
        standardError: directory.file("err"), lifetimeSecondsMax: 60)
      defer {
        process.send(SIGKILL)
        _ = process.waitForEnd(seconds: 10)
      }
      #expect(Deadline(secondsFromNow: 20).wait { access(flag, F_OK) == 0 }, "\(directory.text(of: "err"))")
      try body(try #require(FoundFile(at: path)), "\(process.pid ?? 0)")
    }
  }

  @Test(arguments: ["reading", "writing"]) func `is found, with what the lock is for`(_ kind: String) throws {
    try withHolder(kind) { file, process in
      let holder = try #require(LockHolder.find(of: file))
      #expect("\(holder.process)" == process && holder.name.hasPrefix("python3") && holder.user == geteuid())
      #expect(holder.isExclusive == (kind == "writing") && !holder.isSameProgram)
      // The right to read is no right to be believed.
      #expect(LockHolder.hasForWriting(holder.process, file) == (kind == "writing"))
      #expect(!LockHolder.hasForWriting(getpid(), file))
      #expect(LockHolder.find(of: file, withinMilliseconds: 0) == nil)
    }
  }

  @Test func `is not who holds a lock that keeps nobody away`() throws {
    try withHolder("flock") { file, process in
      #expect(LockHolder.find(of: file) == nil)
      let number = try #require(pid_t(process))
      #expect(!LockHolder.hasForWriting(number, file))
    }
  }

  @Test(.slow) func `is waited for some seconds where it only reads, and not at all where it is a server`() throws {
    for (kind, least, most) in [("reading", 4.0, 8.0), ("writing", 0.0, 2.0)] {
      try withHolder(kind) { file, process in
        let start = ContinuousClock.now
        let wait = LockWait(forStore: file.path)
        while wait.pause() {}
        let seconds = (ContinuousClock.now - start) / .seconds(1)
        #expect(seconds >= least && seconds < most, "\(kind): \(seconds)")
        #expect(
          wait.failure.code == .inUse && wait.failure.description.contains("in use by process \(process) (python3"))
      }
    }
  }
}
