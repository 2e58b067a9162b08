import Glibc
import Lacuna
import LacunaTestSupport
import NBDTestSupport
import Testing

/// What was freed shortly before a server ended goes back to the host while the next one is quiet.
@Suite struct `Space that was freed before a server ended` {
  private static let byteCount: UInt64 = 96 << 20

  /// How many bytes the host has for a file.
  private func allocated(_ path: String) -> UInt64 {
    var status = stat()
    return stat(path, &status) == 0 ? UInt64(status.st_blocks) * 512 : 0
  }

  private func fill(_ client: NBDClient, _ value: UInt8) throws {
    let bytes = [UInt8](repeating: value, count: 1 << 20)
    for offset in stride(from: 0, to: Self.byteCount, by: bytes.count) { try client.write(bytes, at: offset) }
    try client.flush()
  }

  /// Makes a store with the volume `kept` and an empty one, `big`, and has `use` leave much behind; then serves it until the host
  /// has little more than what is used.
  private func run(_ use: (_ path: String) throws -> Void) throws {
    // A server that is slow to end gives back by itself.
    for _ in 0..<5 where try tryToRun(use) { return }
    Issue.record("each of five servers had given all back when it ended")
  }

  private func tryToRun(_ use: (_ path: String) throws -> Void) throws -> Bool {
    try PrivateDirectory.run { directory in
      let path = directory.file("s.lacuna")
      var generator = SeededGenerator(seed: 5)
      let kept = generator.pattern(2 << 20)
      try ServedStore.run(path, ["size=2M", "volume=kept"]) { store in
        _ = try store.control.call(CreateVolume(name: "big", size: Self.byteCount))
        let client = try store.open("kept")
        try client.write(kept, at: 0)
        try client.disconnect()
      }
      try use(path)
      guard allocated(path) > Self.byteCount / 2 else { return false }
      try ServedStore.run(path) { store in
        var used: UInt64 = 0
        // What the file system reserves and does not tell of is the step by which a file grows, at most.
        let isBack = try Deadline(secondsFromNow: 60).wait {
          used = try store.control.call(GetStoreInfo()).used
          return allocated(path) < used + (12 << 20)
        }
        #expect(isBack, "\(allocated(path)) bytes are allocated, of \(used) used")
        try store.checkSound()
        #expect(try store.contents("kept") == kept)
      }
      return true
    }
  }

  @Test func `with a trim, and killed at once`() throws {
    try run { path in
      try ServedStore.run(path) { store in
        try fillAndTrim(store)
        try store.server.kill()
      }
    }
  }

  private func fillAndTrim(_ store: ServedStore) throws {
    let client = try store.open("big")
    try fill(client, 1)
    for offset in stride(from: 0, to: Self.byteCount, by: 16 << 20) { try client.trim(16 << 20, at: offset) }
  }

  @Test(arguments: [false, true])
  func `with volumes and snapshots that were deleted`(_ isKilled: Bool) throws {
    try run { path in
      try ServedStore.run(path) { store in
        let client = try store.open("big")
        try fill(client, 1)
        _ = try store.control.call(CreateSnapshots(names: ["big@a"]))
        try client.disconnect()
        _ = try store.control.call(DeleteVolumes(names: ["big"], force: true, snapshots: true))
        // All of it is free then, and next to nothing of it the host's.
        try store.finishDeletions()
        if isKilled { try store.server.kill() }
      }
    }
  }

  @Test func `and was merged by servers that ended before they were quiet`() throws {
    try run { path in
      try ServedStore.run(path) { store in
        try fillAndTrim(store)
        try store.server.kill()
      }
      // What their recovery has freed is marked in their memory alone.
      for _ in 0..<3 { try ServedStore.run(path) { store in try store.server.kill() } }
    }
  }
}
