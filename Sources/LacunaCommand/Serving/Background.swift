internal import Glibc

/// Work that goes on in a process of its own when this one ends.
enum Background {
  /// Begins `work` in a process of its own: in a session of its own, with nothing to read and with what it writes at the end of
  /// the file `log`. Returns when `work` has called what it is given, with that process's number.
  ///
  /// Only for a process with one thread. Where this process has ended meanwhile, that call of `work`'s fails.
  ///
  /// - Parameter work: returns the exit code of its process.
  /// - Throws: `ExitStatus.failed` where it ends before that; what it wrote is then printed, and a log that was not there before
  ///   is gone again.
  static func begin(log: String, _ work: (_ announce: @escaping () throws -> Void) throws -> Int32) throws -> pid_t {
    let file = try OutputFile.log(at: log)
    let output = file.descriptor
    let oldByteCount = lseek(output, 0, SEEK_END)
    let (readEnd, writeEnd) = try Process.makePipe()
    let child = try Process.fork()
    guard child != 0 else {
      close(readEnd)
      exit(detached(output, writeEnd, work))
    }
    close(writeEnd)
    defer { close(readEnd) }
    guard !readByte(readEnd) else { return child }
    var status: Int32 = 0
    // Safe: the kernel fills in a number.
    while unsafe waitpid(child, &status, 0) < 0 && errno == EINTR {}
    Terminal.writeMessage(text(of: output, from: oldByteCount))
    if file.isNew { file.remove() }
    throw ExitStatus.failed
  }

  /// What the new process does; returns its exit code.
  private static func detached(
    _ output: Int32, _ writeEnd: Int32, _ work: (_ announce: @escaping () throws -> Void) throws -> Int32
  ) -> Int32 {
    setsid()
    let input = unsafe open("/dev/null", O_RDONLY | O_CLOEXEC)
    dup2(input, STDIN_FILENO)
    dup2(output, STDOUT_FILENO)
    dup2(output, STDERR_FILENO)
    do {
      return try work {
        var byte: UInt8 = 1
        // Safe: one byte, which outlives the call.
        guard unsafe write(writeEnd, &byte, 1) == 1 else {
          throw Failure("the process that waited for the server to begin has ended")
        }
        close(writeEnd)
      }
    } catch {
      return Report(error).send()
    }
  }

  /// Waits for a byte; false where none can come any more.
  private static func readByte(_ descriptor: Int32) -> Bool {
    var byte: UInt8 = 0
    while true {
      // Safe: one byte, which outlives the call.
      let count = unsafe read(descriptor, &byte, 1)
      if count >= 0 { return count == 1 }
      if errno != EINTR { return false }
    }
  }

  /// What a file has from `offset` on, 64 KiB of it at most.
  private static func text(of file: Int32, from offset: off_t) -> String {
    let bytes = unsafe [UInt8](unsafeUninitializedCapacity: 65_536) { buffer, count in
      // Safe: the buffer is ours for the length of the closure.
      count = unsafe max(pread(file, buffer.baseAddress, buffer.count, offset), 0)
    }
    return String(decoding: bytes, as: UTF8.self)
  }
}
