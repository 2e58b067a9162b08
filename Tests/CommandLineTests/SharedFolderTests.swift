import Glibc
import NBDTestSupport
import Testing

/// A socket where others may write: they could take its name as soon as it is free, and give clients a server of theirs.
@Suite struct `Sockets in folders of others` {
  /// Serves a store with its socket in a folder of `mode`, and hands what that said to `body`; it is stopped after that.
  private func serve(
    folder mode: mode_t, above: mode_t = 0o700, folderOwner: uid_t = geteuid(), storeOwner: uid_t = geteuid(),
    _ options: [String] = [], _ body: (FinishedCommand) throws -> Void
  ) throws {
    try PrivateDirectory.run { directory in
      let outer = directory.file("outer")
      let folder = "\(outer)/folder"
      let store = directory.file("s")
      let socket = "\(folder)/socket"
      try #require(mkdir(outer, 0o700) == 0 && mkdir(folder, 0o700) == 0)
      defer {
        rmdir(folder)
        rmdir(outer)
      }
      try Program.run(["create", store, "--size", "1M"]).succeeded()
      try #require(chown(folder, folderOwner, folderOwner) == 0 && chown(store, storeOwner, storeOwner) == 0)
      try #require(chmod(folder, mode) == 0 && chmod(outer, above) == 0)
      let served = try Program.run(
        ["serve", store, "--socket", socket, "--background", "--log", directory.file("log")] + options)
      defer { if served.status == .exited(0) { _ = try? Program.run(["stop", store]) } }
      try body(served)
    }
  }

  private func expectRefusal(_ served: FinishedCommand, _ words: String) {
    #expect(served.status == .exited(1))
    #expect(served.standardError.contains(words), "\(served.standardError)")
    #expect(served.standardError.contains("--shared-folder"), "\(served.standardError)")
  }

  @Test(arguments: [0o777, 0o1777, 0o770, 0o702])
  func `a folder that others may write to is refused`(_ mode: mode_t) throws {
    try serve(folder: mode) { expectRefusal($0, "others may write to the folder") }
  }

  @Test func `a folder in whose place they may put another one is refused`() throws {
    try serve(folder: 0o700, above: 0o777) { expectRefusal($0, "above it") }
  }

  @Test func `a folder that is nobody else's to write to is fine, also in one as /tmp is`() throws {
    try serve(folder: 0o755, above: 0o1777) { $0.succeeded() }
  }

  @Test func `whoever means it may`() throws {
    try serve(folder: 0o1777, ["--shared-folder"]) { $0.succeeded() }
  }

  @Test(.enabled(if: geteuid() == 0, "only root can give a folder to another user"))
  func `a folder of another user is refused, unless the store is theirs too`() throws {
    try serve(folder: 0o755, folderOwner: 54321) { expectRefusal($0, "belongs to the user 54321") }
    try serve(folder: 0o755, folderOwner: 54321, storeOwner: 54321) { $0.succeeded() }
  }
}
