import Glibc
import LacunaTestSupport
import NBDTestSupport
import Testing

/// Deleting volumes of which one has a node that cannot be read.
@Suite struct `A deletion where something is damaged` {
  /// Makes a store with `bad`, whose tree has a damaged leaf, and `other`, `third` and `fourth`, which are sound; hands its path over.
  private func withDamagedStore(_ body: (String) throws -> Void) throws {
    try PrivateDirectory.run { directory in
      let template = directory.file("template")
      try Lab.run(.free) { lab in
        for name in ["bad", "other", "third", "fourth"] {
          try lab.run(["create", "--volume", name, "--size", "64M"]).succeeded()
        }
        for name in ["other", "third", "fourth"] { try lab.write(name, [(0, 1 << 20, 2), (9 << 20, 4096, 3)]) }
        try lab.write("bad", (0..<500).map { (offset: ($0 * 7 % 500) << 15, count: 4096, value: 1) })
        // Opening it merges what the journal has: the leaves are the newest.
        try lab.run(["set", "bad", "--quota", "32M"]).succeeded()
        try damage(lab.store, at: try #require(try newestLeafOfExtents(lab.store)) + 100)
        #expect(rename(lab.store, template) == 0)
      }
      try body(template)
    }
  }

  /// Where the newest leaf of extents is with more than 100 entries; from docs/format.md, section 4.
  private func newestLeafOfExtents(_ path: String) throws -> Int? {
    let file = open(path, O_RDONLY)
    defer { close(file) }
    var newest: (generation: UInt64, offset: Int)?
    var block = [UInt8](repeating: 0, count: 4096)
    for offset in stride(from: 0, to: Int(lseek(file, 0, SEEK_END)), by: 4096) {
      guard pread(file, &block, 4096, off_t(offset)) == 4096,
        block[..<6].elementsEqual([0x43, 0x41, 0x4C, 0x4E, 1, 0]), block[6] > 100,
        number(block, 8) == UInt64(offset / 4096)
      else { continue }
      let generation = number(block, 16)
      if generation >= newest?.generation ?? 0 { newest = (generation, offset) }
    }
    return newest?.offset
  }

  private func number(_ block: [UInt8], _ offset: Int) -> UInt64 {
    (0..<8).reduce(0) { $0 | UInt64(block[offset + $1]) << (8 * UInt64($1)) }
  }

  private func damage(_ path: String, at offset: Int) throws {
    let file = open(path, O_RDWR)
    defer { close(file) }
    try check(pwrite(file, [0xDE, 0xAD, 0xBE, 0xEF] as [UInt8], 4, off_t(offset)) == 4, "\(path) cannot be written")
  }

  @Test(arguments: Way.allCases) func `ends, says what stays in use, and holds up no other`(_ way: Way) throws {
    try withDamagedStore { template in
      try Lab.run(way, copying: template) { lab in
        // Nothing is promised of what cannot be read; that it cannot be is no reason not to delete it.
        let plan = try lab.run(["delete", "bad", "--dry-run"]).succeeded().standardOutput
        #expect(plan == "Would delete bad\nAt least 0 bytes would come back\n")
        let gone = try lab.run(["delete", "bad", "--yes", "--wait"])
        #expect(gone.status == .exited(1) && gone.standardOutput == "Deleted bad\n", "\(gone)")
        #expect(
          gone.standardError.contains(#/^lacuna: deleted; but .* bytes\) stay in use \('bad': block \d+, .*\n$/#),
          "\(gone.standardError)")
        // That one is told by its name as long as somebody knows it, and by its inode else.
        let facts = try lab.run(["info"]).succeeded().standardOutput
        let part = way == .served ? "the deleted volume 'bad'" : "a volume that was deleted earlier (inode "
        #expect(facts.contains("damaged:        \(part)") && facts.contains("bytes stay in use"), "\(facts)")

        try lab.run(["delete", "other", "--yes", "--wait"]).succeeded()
        let json = try lab.run(["delete", "third", "--yes", "--wait", "--json"]).succeeded().standardOutput
        #expect(json.contains("\"third\"") && !json.contains("damaged"), "\(json)")
        try lab.run(["delete", "fourth", "--yes"]).succeeded()
        try lab.run(["create", "--volume", "bad", "--size", "1M"]).succeeded()
        try lab.run(["delete", "bad", "--yes", "--wait"]).succeeded()
        // What the others had is free again: what is found is about the damaged one.
        let map = try lab.run(["list", "--space"]).succeeded().standardOutput
        #expect(map.contains("vm1") && map.filter(\.isNewline).count == 2, "\(map)")
        #expect(try lab.run(["info"]).succeeded().standardOutput.contains("being deleted:  1\n"))
      }
    }
  }

  @Test func `tells all of it as JSON`() throws {
    try withDamagedStore { template in
      try Lab.run(.served, copying: template) { lab in
        let gone = try lab.run(["delete", "other", "bad", "--yes", "--wait", "--json"])
        #expect(gone.status == .exited(1), "\(gone)")
        #expect(
          gone.standardOutput.contains(#/"damaged" : \[\s+\{\s+"bytes" : \d+,\s+"name" : "bad",\s+"text" : "block/#),
          "\(gone.standardOutput)")
        #expect(gone.standardError.hasPrefix("{\"error\":{\"code\":\"failed\""), "\(gone.standardError)")
      }
    }
  }
}
