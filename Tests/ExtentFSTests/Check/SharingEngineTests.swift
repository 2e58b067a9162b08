import Atomics
import Devices
import Foundation
import LacunaTestSupport
import SystemPackage
import Testing

@testable import ExtentFS

/// What the check, the independent reader and the engine say of stores that the engine made, with snapshots and clones.
@Suite(.slow) struct SharingEngineTests {
  @Test(.enabled(if: hasPython, "there is no python3"), arguments: [1024, 4096])
  func `engine, check and reader agree about a store with snapshots and clones`(_ blockByteCount: Int) throws {
    try withTestDirectory { directory in
      try withSeededGenerator { generator in
        var store = try FileStoreUnderTest(
          making: directory + "/store", blockByteCount: blockByteCount, limit: 32 << 20,
          journalByteCount: UInt64(blockByteCount * 128))
        let engine = store.engine
        try store.addVolume("disk", byteCount: 900 * blockByteCount + 321)
        var names = ["disk"]
        for round in 0..<12 {
          for _ in 0..<120 { try store.step(&generator) }
          let source = names[generator.number(below: names.count)]
          switch generator.number(below: 4) {
          case 0:
            try engine.clone(source, as: "clone\(round)", createdSeconds: 5)
            names.append("clone\(round)")
            store.volumes.append(try #require(try engine.openVolume(named: "clone\(round)")))
          case 1 where names.count > 3 && source.contains("@"):
            try engine.delete([source], force: false)
            names.removeAll { $0 == source }
          default:
            let name = "\(VolumeName.volume(of: source))@\(round)"
            try engine.snapshot([(String(VolumeName.volume(of: source)), name)], createdSeconds: 5)
            names.append(name)
          }
        }
        for name in names where !name.contains("@") {
          try engine.snapshot([(name, "\(name)@last")], createdSeconds: 5)
          names.append("\(name)@last")
        }
        while try engine.dropDeleted() {}
        try engine.checkpoint()
        for name in names { try compare(engine, name, names, &generator) }

        let online = try engine.check()
        #expect(online.findings == [])
        for account in online.accounts {
          let wanted = try engine.spaceAccount(of: account.name)
          #expect(account.exclusiveData == wanted.exclusiveDataCount && account.mapped == wanted.mappedCount)
          #expect(account.exclusiveNodes == wanted.exclusiveNodeCount && account.reserved == wanted.reservedCount)
        }
        let check = try runReader(store.path, "check")
        #expect(check.status == 0, "\(check.output)")
        let space = try runReader(store.path, "space").output.split(separator: "\n").map(String.init)
        #expect(
          space
            == online.accounts.map {
              "\($0.inode) \($0.mapped) \($0.reserved) \($0.exclusiveData) \($0.exclusiveNodes)"
            })
        for name in names {
          #expect(try runReader(store.path, "cat", name, directory + "/out").status == 0)
          let volume = try #require(try engine.openVolume(named: name))
          #expect(try volume.contents() == Data(contentsOf: URL(fileURLWithPath: directory + "/out")), "\(name)")
        }
        try engine.close()
      }
    }
  }

  /// Holds the differences between two snapshots against their bytes.
  private func compare(
    _ engine: Engine, _ name: String, _ names: [String], _ generator: inout SeededGenerator
  ) throws {
    let other = names[generator.number(below: names.count)]
    guard name.contains("@"), other.contains("@") else { return }
    let old = try #require(try engine.openVolume(named: other))
    let new = try #require(try engine.openVolume(named: name))
    let (before, after) = (try old.contents(), try new.contents())
    var next = 0
    try engine.forEachDifference(from: old, to: new, in: 0..<(.max)) { range, kind in
      let range = Int(range.lowerBound)..<Int(range.upperBound)
      #expect(before[next..<range.lowerBound] == after[next..<range.lowerBound], "\(other) to \(name), before \(range)")
      if kind == .hole { #expect(after[range].allSatisfy { $0 == 0 }, "\(other) to \(name), \(range)") }
      next = range.upperBound
      return true
    }
    #expect(before[next...] == after[next...], "\(other) to \(name), from \(next) on")
  }

  @Test func `a store whose volumes come and go is sound at each point`() throws {
    let device = try MemoryDevice(byteCount: 0, maximumByteCount: 64 << 20)
    var format = FormatOptions()
    format.blockByteCount = 1024
    format.journalByteCount = 65536
    try Engine.format(device, format)
    let engine = try Engine.open(device, EngineOptions()).engine
    let volume = try engine.createVolume(named: "disk", byteCount: 500 << 10, createdSeconds: 0)
    let isOver = ManagedAtomic(false)
    let checkCount = 30
    try inThreads([
      {
        defer { isOver.store(true, ordering: .relaxed) }
        for _ in 0..<checkCount {
          let report = try engine.check()
          try check(report.findings == [], "\(report.findings)")
        }
      },
      {
        var generator = SeededGenerator(seed: 3)
        var round = 0
        while !isOver.load(ordering: .relaxed) {
          for _ in 0..<60 {
            let bytes = generator.nonZeroBytes(1024)
            try bytes.withUnsafeBytes { try volume.write($0, at: generator.number(below: 500) * 1024) }
          }
          try engine.snapshot([("disk", "disk@\(round)")], createdSeconds: 0)
          if round % 3 == 0 { try engine.clone("disk@\(round)", as: "clone\(round)", createdSeconds: 0) }
          if round >= 4 { try engine.delete(["disk@\(round - 4)"], force: false) }
          if round >= 6, round % 3 == 0 { try engine.delete(["clone\(round - 6)"], force: true) }
          _ = try engine.dropDeleted()
          round += 1
        }
      },
    ])
    try engine.close()
    #expect(try StoreCheck.findings(on: device) == [])
  }
}
