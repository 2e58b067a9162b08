import Foundation
import NBDTestSupport
import Testing

/// A store whose newest superblock was damaged, as its users see it.
@Suite struct `A damaged superblock` {
  /// A store with a volume `vm1`, and a volume `late` that its last checkpoint made; with bytes of its newest superblock changed.
  /// - Parameter namesOfTheOther: whether a byte of the root of names is changed that the other superblock leads to.
  private func run(
    changing range: Range<Int>, andNamesOfTheOther namesOfTheOther: Bool = false, _ body: (Lab) throws -> Void
  ) throws {
    try Lab.run(.free) { lab in
      try lab.write("vm1", [(0, 65536, 1)])
      try lab.run(["create", "--volume", "late", "--size", "1M"]).succeeded()
      let file = try FileHandle(forUpdating: URL(fileURLWithPath: lab.store))
      defer { try? file.close() }
      func superblock(_ slot: UInt64) throws -> Data {
        try file.seek(toOffset: slot * 65536)
        return try #require(try file.read(upToCount: 4096))
      }
      let newest = try superblock(0)[64..<72].elementsEqual(superblock(1)[64..<72].map { $0 &- 1 }) ? 1 : 0
      let bytes = try superblock(UInt64(newest))[range].map { ~$0 }
      try file.seek(toOffset: UInt64(newest * 65536 + range.lowerBound))
      try file.write(contentsOf: Data(bytes))
      if namesOfTheOther {
        let root = try superblock(UInt64(1 - newest))[184..<192].reversed().reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
        try file.seek(toOffset: root * 4096 + 200)
        try file.write(contentsOf: Data([0xA5]))
      }
      try body(lab)
    }
  }

  @Test func `of which one byte is wrong is read all the same, found by check, and mended by whoever writes`() throws {
    try run(changing: 160..<161) { lab in
      let list = try lab.run(["list"])
      #expect(list.status == .exited(0) && list.standardOutput.contains("late"), "\(list)")
      #expect(list.standardError.contains(/warning: superblock slot \d: .*nothing is missing/), "\(list)")
      let check = try lab.run(["check", "--data"])
      #expect(check.status == .exited(2) && check.standardOutput.contains("superblock slot"), "\(check)")
      #expect(try lab.run(["recover", "--yes"]).standardOutput == "There is nothing to recover\n")
      try lab.run(["check", "--data"]).succeeded()
      #expect(try lab.run(["list"]).succeeded().standardOutput.contains("late"))
    }
  }

  @Test func `that may have been the newest is given up with a warning`() throws {
    try run(changing: 152..<200) { lab in
      let list = try lab.run(["list"])
      #expect(list.status == .exited(0) && !list.standardOutput.contains("late"), "\(list)")
      #expect(list.standardError.contains("may have been the newest"), "\(list)")
      let check = try lab.run(["check", "--data"])
      #expect(check.status == .exited(2) && check.standardOutput.contains("may have been the newest"), "\(check)")
      let creation = try lab.run(["create", "--volume", "other", "--size", "1M"])
      #expect(
        creation.status == .exited(0) && creation.standardError.contains("may have been the newest"), "\(creation)")
      try lab.run(["check", "--data"]).succeeded()
      #expect(try lab.run(["recover", "--yes"]).standardOutput == "There is nothing to recover\n")
    }
  }

  @Test func `besides one that leads to something else leaves a store to be read, and written once that is accepted`()
    throws
  {
    try run(changing: 152..<200, andNamesOfTheOther: true) { lab in
      #expect(try lab.run(["check", "--data"]).status == .exited(2))
      let refusal = try lab.run(["create", "--volume", "other", "--size", "1M"])
      #expect(refusal.status == .exited(1) && refusal.standardError.contains("lacuna recover"), "\(refusal)")
      try lab.serve(options: ["-r"]) { server in
        let client = try NBDClient(socketPath: server.socketPath, exportName: "vm1")
        #expect(try client.read(4096, at: 0) == [UInt8](repeating: 1, count: 4096))
        try client.disconnect()
      }
      #expect(try lab.run(["recover"]).status == .exited(3))
      #expect(try lab.run(["recover", "--yes"]).standardOutput == "Went back to the older superblock\n")
      try lab.run(["create", "--volume", "other", "--size", "1M"]).succeeded()
      try lab.run(["check", "--data"]).succeeded()
      #expect(try lab.run(["recover", "--yes", "--json"]).standardOutput.contains("\"recovered\" : false"))
    }
  }
}

/// A store whose trees of names or inodes have a wrong byte, as its users see it.
@Suite struct `A damaged catalog` {
  /// A closed store with `vm1`, and one changed byte in the root of the tree that `offset` in the superblock leads to.
  private func run(rootAt offset: Int, _ body: (Lab) throws -> Void) throws {
    try Lab.run(.free) { lab in
      try lab.write("vm1", [(0, 65536, 1)])
      let file = try FileHandle(forUpdating: URL(fileURLWithPath: lab.store))
      defer { try? file.close() }
      func number(_ offset: UInt64) throws -> UInt64 {
        try file.seek(toOffset: offset)
        return try #require(try file.read(upToCount: 8)).reversed().reduce(0) { $0 << 8 | UInt64($1) }
      }
      let slot: UInt64 = try number(64) > number(65536 + 64) ? 0 : 65536
      let byte = try number(slot + UInt64(offset)) * 4096 + 100
      try file.seek(toOffset: byte)
      let old = try #require(try file.read(upToCount: 1))
      try file.seek(toOffset: byte)
      try file.write(contentsOf: Data(old.map { ~$0 }))
      try body(lab)
    }
  }

  @Test func `whose names cannot be read is told as that, and its volumes are found all the same`() throws {
    try run(rootAt: 184) { lab in
      let list = try lab.run(["list"])
      #expect(list.status == .exited(1) && list.standardOutput.contains("vm1"), "\(list)")
      #expect(list.standardError.contains("a part of the tree of names"), "\(list)")
      try lab.serve { server in
        let client = try NBDClient(socketPath: server.socketPath, exportName: "vm1")
        #expect(try client.read(4096, at: 0) == [UInt8](repeating: 1, count: 4096))
        try client.disconnect()
        let served = try lab.run(["list"])
        #expect(served.status == .exited(1) && served.standardError.contains("tree of names"), "\(served)")
        // Writing a name writes the tree anew.
        try lab.run(["snapshot", "vm1@a"]).succeeded()
      }
      try lab.run(["list"]).succeeded()
      try lab.run(["check", "--data"]).succeeded()
    }
  }

  @Test func `whose inodes cannot be read is no store without volumes`() throws {
    try run(rootAt: 152) { lab in
      let list = try lab.run(["list"])
      #expect(list.status == .exited(1) && list.standardError.contains("a node of kind inodes"), "\(list)")
      let info = try lab.run(["info", "vm1"])
      #expect(info.status == .exited(1) && !info.standardError.contains("there is no volume"), "\(info)")
      #expect(try lab.run(["check"]).status == .exited(2))
    }
  }
}
