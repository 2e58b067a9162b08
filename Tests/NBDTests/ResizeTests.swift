import Glibc
import Lacuna
import LacunaTestSupport
import NBDTestSupport
import Testing

@Suite struct `Sizes of a served store` {
  private let mebi: UInt64 = 1 << 20

  private func expect(_ code: LacunaError.Code, _ body: () throws -> Void) {
    let error = #expect(throws: LacunaError.self) { try body() }
    #expect(error?.code == code, "\(String(describing: error))")
  }

  private func expectError(_ codes: [Int32], _ body: () throws -> Void) {
    let error = #expect(throws: NBDError.self) { try body() }
    #expect(error.map { codes.contains($0.code) } == true, "\(String(describing: error))")
  }

  @Test func `clients keep the size that they were told, and new ones see the new one`() throws {
    try PrivateDirectory.run { directory in
      try ServedStore.run(directory.file("s.lacuna"), ["size=4M", "journal=1M"]) { store in
        let client = try store.open("disk")
        let ones = [UInt8](repeating: 1, count: 1 << 20)
        for index in 0..<4 { try client.write(ones, at: UInt64(index) * mebi) }
        _ = try store.control.call(CreateSnapshots(names: ["disk@4"]))

        // Larger, by what is no whole block either.
        #expect(try store.control.call(ResizeVolume(name: "disk", size: 8 * mebi + 1)).size == 8 * mebi + 1)
        #expect(try client.size() == 4 * mebi)
        expectError([EINVAL, ENOSPC]) { try client.write([2], at: 6 * mebi) }
        let second = try store.open("disk")
        #expect(try second.size() == 8 * mebi + 1)
        try second.write([3], at: 8 * mebi)
        #expect(try second.read(2, at: 8 * mebi - 1) == [0, 3])
        try client.write([4], at: 0)
        #expect(try second.read(1, at: 0) == [4])

        // Smaller: only where it is allowed, and nobody is connected or somebody insists.
        expect(.invalidParameter) { _ = try store.control.call(ResizeVolume(name: "disk", size: 2 * mebi)) }
        expect(.busy) { _ = try store.control.call(ResizeVolume(name: "disk", size: 2 * mebi, shrink: true)) }
        expect(.readOnly) { _ = try store.control.call(ResizeVolume(name: "disk@4", size: 8 * mebi)) }
        expect(.noSuchVolume) { _ = try store.control.call(ResizeVolume(name: "no", size: 8 * mebi)) }
        expect(.invalidParameter) {
          _ = try store.control.call(ResizeVolume(name: "disk", size: 0, shrink: true, force: true))
        }
        #expect(try second.read(2, at: 8 * mebi - 1) == [0, 3])
        let info = try store.control.call(ResizeVolume(name: "disk", size: 2 * mebi, shrink: true, force: true))
        #expect(info.size == 2 * mebi)
        #expect(try second.size() == 8 * mebi + 1)
        // What is still there works; what is not is an error, and the connection goes on.
        for old in [client, second] {
          #expect(try old.read(1 << 20, at: mebi) == ones)
          try old.write(ones, at: mebi)
          expectError([EINVAL, EIO, ENOSPC]) { _ = try old.read(4096, at: 3 * mebi) }
          expectError([EINVAL, EIO, ENOSPC]) { try old.write([5], at: 3 * mebi) }
          expectError([EINVAL, EIO, ENOSPC]) { try old.write(ones, at: 2 * mebi - 4096) }
          expectError([EINVAL, EIO, ENOSPC]) { try old.zero(4096, at: 3 * mebi) }
          expectError([EINVAL, EIO, ENOSPC]) { try old.trim(4096, at: 3 * mebi) }
          _ = try? old.blockStatus(mebi, at: 3 * mebi)
          #expect(try old.read(1 << 20, at: mebi) == ones)
          try old.flush()
        }
        let third = try store.open("disk")
        #expect(try third.size() == 2 * mebi)
        // The snapshot has all that it had, and the space of the volume behind its end is gone for good.
        #expect(try store.contents("disk@4") == Array(repeating: 1, count: 4 << 20))
        _ = try store.control.call(ResizeVolume(name: "disk", size: 4 * mebi))
        let fourth = try store.open("disk")
        #expect(try fourth.read(2 << 20, at: 2 * mebi) == [UInt8](repeating: 0, count: 2 << 20))
        // Clients with an old, larger size see what is there again.
        #expect(try second.read(1, at: 3 * mebi) == [0])
        for one in [client, second, third, fourth] { try one.disconnect() }
        let isUnused = try Deadline(secondsFromNow: 10).wait {
          try store.control.call(GetVolumeInfo(name: "disk")).clients == 0
        }
        #expect(isUnused)
        #expect(try store.control.call(ResizeVolume(name: "disk", size: mebi, shrink: true)).size == mebi)
        try store.checkSound()
      }
    }
  }

  @Test func `a volume that changes its size under load stays what its clients wrote`() throws {
    try withSeededGenerator { generator in
      let seed = generator.next()
      try PrivateDirectory.run { directory in
        try ServedStore.run(directory.file("s.lacuna"), ["size=2M", "journal=1M"]) { store in
          let (socketPath, path) = (store.server.socketPath, store.path)
          try inThreads(4) { thread in
            if thread == 3 {
              let control = try ControlClient(path: path + ".sock")
              for round in 0..<30 {
                let size = UInt64(round % 2 == 0 ? 3 : 2) << 20
                _ = try control.call(ResizeVolume(name: "disk", size: size, shrink: true, force: true))
              }
              return
            }
            // Each a part of the first 2 MiB, which is always there.
            var generator = SeededGenerator(seed: seed &+ UInt64(thread))
            let client = try NBDClient(socketPath: socketPath)
            let range = UInt64(thread) * 700_001..<UInt64(thread + 1) * 690_001
            var part = ExpectedBytes(range: range)
            for _ in 0..<60 {
              let bytes = generator.pattern(1 + Int(generator.number(below: 20_000)))
              let offset = range.lowerBound + UInt64(generator.number(below: range.count - bytes.count))
              try client.write(bytes, at: offset)
              part.write(bytes, at: offset)
            }
            try part.check(client)
          }
          try store.checkSound()
        }
      }
    }
  }
}
