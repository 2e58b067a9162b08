import Glibc
import Lacuna
import LacunaTestSupport
import NBDTestSupport
import Testing

/// A bit flips in the metadata of one volume: the others are served, and everybody is told.
@Suite struct `A store with one bad block` {
  private static let volumeByteCount = 16 << 20

  /// Where the newest leaf of extents is that was written for `volume`, whose blocks begin with `byte`; from docs/format.md, section 6.
  private func leaves(_ file: [UInt8]) -> [(offset: Int, generation: UInt64, owner: UInt64)] {
    func number(_ offset: Int) -> UInt64 { (0..<8).reduce(0) { $0 | UInt64(file[offset + $1]) << (8 * UInt64($1)) } }
    return stride(from: 0, to: file.count - 4096, by: 4096).compactMap { offset in
      guard file[offset..<offset + 6].elementsEqual([0x43, 0x41, 0x4C, 0x4E, 1, 0]),
        number(offset + 8) == UInt64(offset / 4096)
      else { return nil }
      return (offset, number(offset + 16), number(offset + 24))
    }
  }

  private func bytes(of path: String) throws -> [UInt8] {
    let file = open(path, O_RDONLY)
    try check(file >= 0, "\(path) cannot be opened")
    defer { close(file) }
    var bytes = [UInt8](repeating: 0, count: Int(lseek(file, 0, SEEK_END)))
    var done = 0
    while done < bytes.count {
      let count = bytes.withUnsafeMutableBytes { buffer in
        pread(file, buffer.baseAddress?.advanced(by: done), buffer.count - done, off_t(done))
      }
      try check(count > 0, "\(path) cannot be read")
      done += count
    }
    return bytes
  }

  private func flip(_ path: String, at offset: Int) throws {
    let file = open(path, O_RDWR)
    defer { close(file) }
    var byte: UInt8 = 0
    try check(pread(file, &byte, 1, off_t(offset)) == 1, "cannot read")
    byte ^= 1
    try check(pwrite(file, &byte, 1, off_t(offset)) == 1, "cannot write")
  }

  @Test func `in a leaf of one volume, found by a checkpoint: the others are served and written`() throws {
    try PrivateDirectory.run { directory in
      let path = directory.file("s.lacuna")
      try ServedStore.run(path, ["size=16M", "volume=bad"]) { store in
        _ = try store.control.call(CreateVolume(name: "good", size: 16 << 20))
        let (bad, good) = (try store.open("bad"), try store.open("good"))
        for block in 0..<2000 as Range<UInt64> { try bad.write([UInt8](repeating: 1, count: 4096), at: block << 13) }
        try good.write([UInt8](repeating: 2, count: 1 << 20), at: 0)
        try bad.flush()
        // A checkpoint, so that the journal has nothing of it.
        _ = try store.control.call(CreateSnapshots(names: ["good@s"]))
      }
      let newest = leaves(try bytes(of: path)).max { ($0.generation, $0.offset) < ($1.generation, $1.offset) }
      let leaf = try #require(newest)
      try flip(path, at: leaf.offset + 2000)
      let file = try bytes(of: path)
      let firstBlock = (0..<8).reduce(0 as UInt64) { $0 | UInt64(file[leaf.offset + 64 + $1]) << (8 * UInt64($1)) }

      // What a read has met is known of the volume, and not of who has its name next.
      try ServedStore.run(path) { store in
        let bad = try store.open("bad")
        let error = #expect(throws: NBDError.self) { _ = try bad.read(4096, at: firstBlock << 12) }
        #expect(error?.code == EIO)
        try bad.disconnect()
        _ = try store.control.call(RenameVolume(name: "bad", to: "worse"))
        _ = try store.control.call(CreateVolume(name: "bad", size: 1 << 20))
        #expect(try store.control.call(GetVolumeInfo(name: "worse")).damage != nil)
        #expect(try store.control.call(GetVolumeInfo(name: "bad")).damage == nil)
        _ = try store.control.call(DeleteVolumes(names: ["bad"]))
        _ = try store.control.call(RenameVolume(name: "worse", to: "bad"))
      }

      for round in 0..<3 as Range<UInt8> {
        try ServedStore.run(path) { store in
          let good = try store.open("good")
          try good.write([UInt8](repeating: 10 + round, count: 4096), at: UInt64(round) << 12)
          if round == 0 {
            // What the leaf is needed for is in the journal now.
            let bad = try store.open("bad")
            try bad.write([UInt8](repeating: 9, count: 4096), at: firstBlock << 12)
            try bad.flush()
            try bad.disconnect()
          }
          _ = try store.control.call(SetVolume(name: "good", quota: 8 << 20 + UInt64(round) << 12))
          try good.flush()
          #expect(try good.read(1, at: UInt64(round) << 12) == [10 + round])

          // The damaged one has what was acknowledged, and all that the leaf is not needed for; and says what it is.
          let bad = try store.open("bad")
          #expect(try bad.read(4096, at: firstBlock << 12) == [UInt8](repeating: 9, count: 4096))
          let other: UInt64 = firstBlock > 1000 ? 0 : 1999 * 2
          #expect(try bad.read(1, at: other << 12) == [1])
          let error = #expect(throws: NBDError.self) { _ = try bad.read(4096, at: (firstBlock + 2) << 12) }
          #expect(error?.code == EIO)
          #expect(throws: NBDError.self) { try bad.write([3], at: 0) }
          let info = try store.control.call(GetVolumeInfo(name: "bad"))
          #expect(info.damage?.contains("read-only") == true && info.readOnly, "\(info)")
          let parts = try store.control.call(GetStoreInfo()).damage ?? []
          #expect(parts.contains { $0.part == "volume 'bad'" }, "\(parts)")
          #expect(try store.control.call(GetStatistics()).damagedParts ?? 0 > 0)
          #expect(try !store.control.call(CheckStore(data: false)).findings.isEmpty)
          let lines = store.server.standardError.split(separator: "\n").filter { $0.contains("warning: volume 'bad'") }
          #expect(lines.count == 1, "\(lines)")
          try bad.disconnect()
          try good.disconnect()
        }
      }
      // It can be deleted, and is then no more.
      try ServedStore.run(path) { store in
        _ = try store.control.call(DeleteVolumes(names: ["bad"]))
        // What it had is not given back, and nobody waits for that.
        let isTold = try Deadline(secondsFromNow: 30).wait { try store.control.call(GetDeletions()).damaged == 1 }
        #expect(isTold)
        let good = try store.open("good")
        for round in 0..<3 as Range<UInt8> { #expect(try good.read(1, at: UInt64(round) << 12) == [10 + round]) }
        try good.write([5], at: 0)
        try good.flush()
        try good.disconnect()
      }
    }
  }

  @Test func `where nothing can be written any more, all that can be read is served`() throws {
    try PrivateDirectory.run { directory in
      let path = directory.file("s.lacuna")
      try ServedStore.run(path, ["size=16M", "volume=v"]) { store in
        let client = try store.open("v")
        try client.write([UInt8](repeating: 7, count: 1 << 20), at: 0)
        try client.flush()
        try client.disconnect()
        _ = try store.control.call(CreateSnapshots(names: ["v@s"]))
      }
      // The one node of the space tree: kind 4, level 0; the newest counts.
      let file = try bytes(of: path)
      let nodes = stride(from: 0, to: file.count - 4096, by: 4096).filter {
        file[$0..<$0 + 6].elementsEqual([0x43, 0x41, 0x4C, 0x4E, 4, 0])
      }
      try #require(!nodes.isEmpty)
      for node in nodes { try flip(path, at: node + 300) }
      // Reading is offered to those who ask for no more.
      try NBDServer.run(PluginUnderTest.command(store: path, ["create=false"], options: ["-r"])) { server in
        let client = try NBDClient(socketPath: server.socketPath, exportName: "v")
        #expect(try client.size() == 16 << 20)
        // A hole needs no checksum; data cannot be verified.
        #expect(try client.read(4096, at: 8 << 20) == [UInt8](repeating: 0, count: 4096))
        let error = #expect(throws: NBDError.self) { _ = try client.read(4096, at: 0) }
        #expect(error?.code == EIO)
        try client.disconnect()
        #expect(server.standardError.contains("warning"))
      }
    }
  }
}
