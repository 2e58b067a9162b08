import Bytes
import Glibc
import Lacuna
import LacunaTestSupport
import NBDTestSupport
import Testing

@Suite struct `Throwaway clones of a served store` {
  /// What a process has: descriptors, threads, and memory in bytes.
  private struct Footprint {
    var descriptors: Int
    var threads: Int
    var memory: Int

    init(_ pid: Int32) throws {
      let status = bytes(ofProcessFile: "/proc/\(pid)/status").split(separator: "\n")
      func number(_ key: String) throws -> Int {
        let line = try #require(status.first { $0.hasPrefix(key) })
        return try #require(line.split(separator: "\t").last?.split(separator: " ").first.flatMap { Int($0) })
      }
      threads = try number("Threads:")
      memory = try number("VmRSS:") << 10
      let directory = try #require(opendir("/proc/\(pid)/fd"))
      defer { closedir(directory) }
      descriptors = 0
      while readdir(directory) != nil { descriptors += 1 }
    }
  }

  @Test func `a thousand of them leave no block, no descriptor, no thread and no memory behind`() throws {
    try withSeededGenerator { generator in
      let seed = generator.next()
      try PrivateDirectory.run { directory in
        try ServedStore.run(directory.file("s.lacuna"), ["size=64M", "journal=1M", "cache=8M"]) { store in
          let pattern = generator.pattern(4 << 20)
          let disk = try store.open("disk")
          for start in stride(from: 0, to: pattern.count, by: 1 << 20) {
            try disk.write(Array(pattern[start..<start + (1 << 20)]), at: UInt64(start))
          }
          _ = try store.control.call(CreateSnapshots(names: ["disk@golden"]))
          let pid = try #require(store.server.pid)
          let socketPath = store.server.socketPath

          /// `count` throwaways, by four clients at once.
          func use(_ count: Int) throws {
            try inThreads(4) { thread in
              var generator = SeededGenerator(seed: seed &+ UInt64(thread))
              for number in 0..<count / 4 {
                // Some shared by name, of the four clients at once.
                let name = number % 5 == 0 ? "disk@golden+\(number / 10)" : number % 7 == 0 ? "disk+" : "disk@golden+"
                let client = try NBDClient(socketPath: socketPath, exportName: name)
                let offset = generator.number(below: 1020) * 4096
                if number % 5 != 0 {
                  try check(
                    try client.read(4096, at: UInt64(offset)) == Array(pattern[offset..<offset + 4096]),
                    "'\(name)' is not what it was made of")
                }
                if number % 3 == 0 {
                  let bytes = generator.pattern(8192)
                  let place = number % 5 == 0 ? UInt64(thread) << 20 | 32 << 20 : UInt64(offset)
                  try client.write(bytes, at: place)
                  try check(try client.read(8192, at: place) == bytes, "'\(name)' has not what was written")
                }
                if generator.oneIn(2) { try client.disconnect() }
              }
            }
            let areGone = try Deadline(secondsFromNow: 20).wait {
              try store.control.call(ListVolumes(kind: .throwaway)).volumes.isEmpty
            }
            try check(areGone, "throwaways are left")
            try store.finishDeletions()
          }

          /// Blocks in use once nothing waits any more.
          func settledUse() throws -> UInt64 {
            // A snapshot more makes a checkpoint, which sets free what waited.
            _ = try store.control.call(CreateSnapshots(names: ["disk@settle"]))
            _ = try store.control.call(DeleteVolumes(names: ["disk@settle"]))
            try store.finishDeletions()
            return try store.control.call(GetStoreInfo()).used
          }

          // Caches and the memory allocator have what they want after the first few.
          try use(400)
          let used = try settledUse()
          let before = try Footprint(pid)
          try use(1000)
          let after = try settledUse()
          #expect(after == used, "\(after - used) bytes are left in use")
          // nbdkit's own threads of a connection end a moment after it.
          let isSame = try Deadline(secondsFromNow: 10).wait {
            let now = try Footprint(pid)
            return now.descriptors <= before.descriptors && now.threads <= before.threads
          }
          let now = try Footprint(pid)
          #expect(isSame, "\(before) became \(now)")
          #expect(now.memory < before.memory + (16 << 20), "\(before) became \(now)")
          print("1,000 throwaways: \(before), then \(now)")
          #expect(try store.control.call(GetStoreInfo()).throwaways == 0)
          try store.checkSound()
        }
      }
    }
  }
}

/// The text of a file of /proc, whose size nobody knows before.
private func bytes(ofProcessFile path: String) -> String {
  guard let file = fopen(path, "re") else { return "" }
  defer { fclose(file) }
  var bytes = [UInt8](repeating: 0, count: 1 << 16)
  let count = fread(&bytes, 1, bytes.count, file)
  return String(decoding: bytes[..<count], as: UTF8.self)
}
