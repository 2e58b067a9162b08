import Glibc
import Lacuna
import NBDTestSupport
import Testing

@Suite struct `Cache requests` {
  @Test(arguments: ["disk", "disk@a", "disk@a..b"])
  func `bring what they name into memory, and not the rest`(export: String) throws {
    try PrivateDirectory.run { directory in
      let path = directory.file("s.lacuna")
      let (byteCount, part): (Int, Range<Int>) = (8 << 20, 1 << 20..<3 << 20)
      try ServedStore.run(path, ["size=16M", "journal=1M"]) { store in
        let client = try store.open("disk")
        for offset in stride(from: 0, to: byteCount, by: 1 << 20) {
          try client.write(
            (0..<1 << 20).map { UInt8(truncatingIfNeeded: $0 / 4096 + offset / 77 | 1) }, at: UInt64(offset))
        }
        try client.flush()
        for name in ["a", "b"] { _ = try store.control.call(CreateSnapshots(names: ["disk@\(name)"])) }
        try client.disconnect()
      }
      let cache = try PageCache(of: path)
      try ServedStore.run(path) { store in
        let places = try store.control.call(MapVolume(name: "disk")).extents.compactMap { extent in
          extent.physical.map { (bytes: Int(extent.offset)..<Int(extent.offset + extent.length), place: Int($0)) }
        }
        func inMemory(_ range: Range<Int>) -> Int {
          places.reduce(0) { sum, extent in
            let bytes = extent.bytes.clamped(to: range)
            let place = bytes.isEmpty ? 0 : extent.place + bytes.lowerBound - extent.bytes.lowerBound
            return sum + cache.byteCount(in: place..<place + bytes.count)
          }
        }
        let client = try store.open(export)
        for extent in places { cache.forget(extent.place..<extent.place + extent.bytes.count) }
        // A file system in memory has nowhere else to keep them.
        guard inMemory(0..<byteCount) == 0 else { return }
        try client.cache(UInt64(part.count), at: UInt64(part.lowerBound))
        let isThere = Deadline(secondsFromNow: 60).wait { inMemory(part) == part.count }
        #expect(isThere, "\(inMemory(part)) of \(part.count) bytes are in memory")
        // What was not asked for is not there, but for what the kernel reads by the way.
        #expect(inMemory(4 << 20..<byteCount) < byteCount / 4)
      }
    }
  }
}

/// What the kernel has of a file in memory.
private final class PageCache {
  private let file: Int32
  private let byteCount: Int
  private let memory: UnsafeMutableRawPointer

  init(of path: String) throws {
    file = open(path, O_RDONLY)
    var status = stat()
    try #require(fstat(file, &status) == 0)
    byteCount = Int(status.st_size)
    // A mapping that was never touched keeps no page.
    let mapping = mmap(nil, byteCount, PROT_READ, MAP_SHARED, file, 0)
    memory = try #require(mapping == MAP_FAILED ? nil : mapping)
  }

  deinit {
    munmap(memory, byteCount)
    close(file)
  }

  func forget(_ range: Range<Int>) {
    fsync(file)
    posix_fadvise(file, range.lowerBound, range.count, POSIX_FADV_DONTNEED)
  }

  /// How many bytes of a range of whole pages are there.
  func byteCount(in range: Range<Int>) -> Int {
    guard !range.isEmpty else { return 0 }
    var pages = [UInt8](repeating: 0, count: range.count / 4096)
    mincore(memory + range.lowerBound, range.count, &pages)
    return 4096 * pages.count { $0 & 1 == 1 }
  }
}
