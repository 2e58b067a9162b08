import Glibc
import Lacuna
import LacunaTestSupport
import NBDTestSupport
import Testing

@Suite struct `Deletion in the background` {
  /// How many bytes the host has for a file.
  private func allocated(_ path: String) -> Int {
    var status = stat()
    return stat(path, &status) == 0 ? Int(status.st_blocks) * 512 : 0
  }

  /// Writes blocks, many at once.
  private func write(_ client: NBDClient, _ blocks: StrideTo<UInt64>) throws {
    let bytes = [UInt8](repeating: 0xC3, count: 4096)
    for block in blocks {
      _ = try client.startWrite(bytes, at: block * 4096)
      if client.commandsInFlight == 256 { try NBDClient.finish([client]) }
    }
    try NBDClient.finish([client])
  }

  @Test func `a fragmented volume goes in steps, also after kills, and its space comes back to the host`() throws {
    try PrivateDirectory.run { directory in
      let path = directory.file("s.lacuna")
      let extentCount: UInt64 = 40_000
      let snapshotCount = 10
      try ServedStore.run(path, ["size=1M", "journal=1M"]) { store in
        let disk = try store.open("disk")
        try disk.write([UInt8](repeating: 7, count: 1 << 20), at: 0)
        try disk.disconnect()
      }
      var lefts: [UInt64] = []
      try ServedStore.run(path) { store in
        _ = try store.control.call(CreateVolume(name: "big", size: extentCount * 8192))
        let client = try store.open("big")
        // Each second block, so that each is an extent of its own; and again for each snapshot one in each leaf of the tree, so
        // that the snapshots have more nodes than one step gives up.
        try write(client, stride(from: 0, to: extentCount * 2, by: 2))
        for number in 0..<snapshotCount {
          _ = try store.control.call(CreateSnapshots(names: ["big@\(number)"]))
          try write(client, stride(from: UInt64(number) * 2, to: extentCount * 2, by: 160))
        }
        try client.flush()
        try client.disconnect()
        let isUnused = try Deadline(secondsFromNow: 10).wait {
          try store.control.call(GetVolumeInfo(name: "big")).clients == 0
        }
        try #require(isUnused)
        let start = ContinuousClock.now
        let deleted = try store.control.call(DeleteVolumes(names: ["big"], snapshots: true))
        print(
          "deleting a volume of \(extentCount) extents and \(snapshotCount) snapshots took \(ContinuousClock.now - start)"
        )
        #expect(deleted.deleted == ["big"] + (0..<snapshotCount).map { "big@\($0)" }.sorted())
        #expect(try store.control.call(ListVolumes()).volumes.map(\.name) == ["disk"])
        #expect(throws: NBDError.self) { try store.open("big") }
        // Killed when some of it is given back.
        let isHalf = try Deadline(secondsFromNow: 20).wait {
          lefts.append(try store.control.call(GetDeletions()).mappedLeft)
          return lefts.last != lefts.first
        }
        #expect(isHalf)
        try store.server.kill()
      }
      try ServedStore.run(path) { store in
        lefts.append(try store.control.call(GetDeletions()).mappedLeft)
        #expect(throws: NBDError.self) { try store.open("big") }
        try store.server.kill()
      }
      try ServedStore.run(path) { store in
        // The name may be used again while the old volume still goes.
        _ = try store.control.call(CreateVolume(name: "big", size: 1 << 20))
        #expect(try store.contents("big") == [UInt8](repeating: 0, count: 1 << 20))
        #expect(try store.contents("disk") == [UInt8](repeating: 7, count: 1 << 20))
        let isOver = try Deadline(secondsFromNow: 60).wait {
          let left = try store.control.call(GetDeletions())
          lefts.append(left.mappedLeft)
          return left.volumes == 0
        }
        #expect(isOver)
        try store.checkSound()
        let accounts = try store.control.call(CheckStore()).accounts
        #expect(accounts.exclusive == 1 << 20 && accounts.shared == 0, "\(accounts)")
      }
      var steps: [UInt64] = []
      for left in lefts where steps.last != left { steps.append(left) }
      #expect(steps.count >= 3 && steps == steps.sorted(by: >) && steps.last == 0, "\(steps)")
      // And the host gets back what this server has freed.
      try ServedStore.run(path) { store in
        _ = try store.control.call(CreateVolume(name: "more", size: 1 << 30))
        let client = try store.open("more")
        try write(client, stride(from: 0, to: 20_000, by: 2))
        try client.disconnect()
        let before = allocated(path)
        _ = try store.control.call(DeleteVolumes(names: ["more"], force: true))
        try store.finishDeletions()
        let isBack = Deadline(secondsFromNow: 20).wait { allocated(path) < before - (32 << 20) }
        #expect(isBack, "\(allocated(path)) of \(before) bytes are allocated")
      }
      print("it had left, one look after the other: \(steps)")
    }
  }
}
