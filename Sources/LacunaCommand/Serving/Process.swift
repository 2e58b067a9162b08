internal import CLinux
internal import Glibc
internal import Lacuna

/// This process and its surroundings.
enum Process {
  /// A variable of the environment; nil where it is missing or empty.
  static func variable(_ name: String) -> String? {
    guard let value = unsafe getenv(name) else { return nil }
    // Safe: the value ends in a NUL, and nothing changes the environment.
    let text = unsafe String(cString: value)
    return text.isEmpty ? nil : text
  }

  /// Whether there is a file that may be read.
  static func mayRead(_ path: String) -> Bool { unsafe access(path, R_OK) == 0 }

  /// Whether there is a program that may be run.
  static func mayRun(_ path: String) -> Bool {
    var status = stat()
    // Safe: the kernel fills in a structure of this type, which outlives the call.
    return unsafe stat(path, &status) == 0 && status.st_mode & S_IFMT == S_IFREG && access(path, X_OK) == 0
  }

  /// The folder that relative paths begin in.
  static func currentFolder() -> String {
    guard let path = unsafe getcwd(nil, 0) else { return "." }
    defer { unsafe free(path) }
    // Safe: getcwd allocated it, with a NUL at its end.
    return unsafe String(cString: path)
  }

  /// A path from the root on.
  static func absolute(_ path: String) -> String {
    path.isAbsolutePath ? path : "\(currentFolder())/\(path)"
  }

  /// The folder of this program's file, symbolic links followed.
  static func folderOfProgram() -> String {
    let program = StoreFile.absolute("/proc/self/exe")
    return program.lastIndex(of: "/").map { String(program[..<$0]) } ?? "."
  }

  /// What a shell's command prints; empty where it cannot be run.
  static func output(of command: String) -> String {
    guard let pipe = unsafe popen(command, "re") else { return "" }
    defer { unsafe pclose(pipe) }
    var bytes: [UInt8] = []
    while true {
      // Safe: the stream is open until the end of this function.
      let byte = unsafe getc(pipe)
      guard byte != EOF else { return String(decoding: bytes, as: UTF8.self) }
      bytes.append(UInt8(truncatingIfNeeded: byte))
    }
  }

  /// Lets no crash of this process leave a file, which would hold what is on the disks.
  static func forbidCoreFiles() {
    var limit = rlimit(rlim_cur: 0, rlim_max: 0)
    // Safe: the kernel reads a structure of this type, which outlives the call.
    _ = unsafe setrlimit(__rlimit_resource_t(RLIMIT_CORE.rawValue), &limit)
  }

  /// Runs a program in this process's place; returns only where that fails, with the reason.
  static func replace(_ arguments: [String]) -> String {
    var pointers: [UnsafeMutablePointer<CChar>?] = unsafe arguments.map { unsafe strdup($0) }
    unsafe pointers.append(nil)
    // Safe: the array ends in a nil, and its strings live until the process ends.
    _ = unsafe execv(arguments[0], &pointers)
    return text(ofError: errno)
  }

  /// Goes on as two processes, in this one with the number of the new one, and there with 0. Only for a process with one thread.
  static func fork() throws -> pid_t {
    let child = lacuna_fork()
    guard child >= 0 else { throw Failure("cannot start a process: \(text(ofError: errno))") }
    return child
  }

  /// A pipe, whose ends programs that are run do not get.
  static func makePipe() throws -> (readEnd: Int32, writeEnd: Int32) {
    var ends: [Int32] = [0, 0]
    // Safe: the kernel fills in two numbers.
    guard unsafe pipe(&ends) == 0 else { throw Failure("cannot make a pipe: \(text(ofError: errno))") }
    for end in ends { _ = fcntl(end, F_SETFD, FD_CLOEXEC) }
    return (ends[0], ends[1])
  }

  /// What the system calls an error.
  static func text(ofError error: Int32) -> String {
    // Safe: the text ends in a NUL, and is copied before another call could change it.
    unsafe String(cString: strerror(error))
  }
}
