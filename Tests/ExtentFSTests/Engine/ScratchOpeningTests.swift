import Devices
import Foundation
import LacunaTestSupport
import SystemPackage
import Testing

@testable import ExtentFS

/// A store whose process was killed, looked at: it says what it says after recovery, and stays as it is.
@Suite struct ScratchOpeningTests {
  @Test(.slow) func `a killed store that is looked at says what it says once it is opened for writing`() throws {
    try withSeededGenerator { generator in
      try withTestDirectory { directory in
        let path = FilePath("\(directory)/store")
        do {
          let device = try FileDevice(creating: path, byteCount: 0)
          try NamespaceStore.format(device)
        }
        let ledger = NamespaceLedger { 0 }
        var differing = 0
        for round in 0..<25 {
          var store = try NamespaceStore(opening: try FileDevice(opening: path))
          for _ in 0..<generator.number(below: 80) { try store.step(ledger, &generator) }
          let killed = "\(directory)/killed"
          try FileManager.default.copyItem(atPath: path.string, toPath: killed)
          differing += try Self.compare(killed) ? 1 : 0
          try FileManager.default.removeItem(atPath: killed)
          try LacunaTestSupport.check(round < 24 || differing > 0, "no store had anything in its journal")
        }
      }
    }
  }

  /// Compares the two openings of the store in the file `path`; returns whether its journal had changes.
  private static func compare(_ path: String) throws -> Bool {
    let before = try Data(contentsOf: URL(fileURLWithPath: path))
    let looked: [String]
    do {
      let device = try FileDevice(opening: FilePath(path), access: .scratch)
      let (engine, warnings) = try Engine.openScratch(device, options)
      looked = try describe(engine) + warnings
      #expect(throws: ExtentFSError.self) { try engine.checkpoint() }
    }
    try LacunaTestSupport.check(
      try Data(contentsOf: URL(fileURLWithPath: path)) == before, "a store that was looked at has changed")
    let unmerged: Bool
    do {
      let device = try FileDevice(opening: FilePath(path), access: .readOnly)
      let engine = try Engine.open(device, options, readOnly: true).engine
      unmerged = try describe(engine) != looked
    }
    let device = try FileDevice(opening: FilePath(path))
    let (engine, warnings) = try Engine.open(device, options)
    let opened = try describe(engine) + warnings
    for (one, other) in zip(looked, opened) where one != other { throw CheckFailure("\(one)\nand\n\(other)") }
    try LacunaTestSupport.check(looked.count == opened.count, "\(looked)\nand\n\(opened)")
    return unmerged
  }

  private static var options: EngineOptions {
    var options = EngineOptions()
    options.limitByteCount = 8 << 20
    return options
  }

  /// What the store says: of itself, of each volume, of each two of them, and of what is wrong.
  private static func describe(_ engine: Engine) throws -> [String] {
    let figures = engine.usage
    var lines = ["used \(figures.usedByteCount), free \(figures.freeByteCount), \(figures.featureNames)"]
    let records = try engine.volumeRecords().filter { !$0.record.isTransient }
    for (inode, record) in records {
      let account = try engine.spaceAccount(of: record.name)
      lines.append(
        "\(inode) '\(record.name)' \(record.kind) \(record.byteCount) of \(record.origin): \(account), quota \(record.quotaBlocks)"
      )
      try withVolume(record.name, engine) { volume in
        try volume.forEachMapping(in: 0..<volume.byteCount) { bytes, kind, physical in
          lines.append("'\(record.name)' \(bytes) \(kind) at \(physical.map { "\($0)" } ?? "-")")
          return true
        }
      }
    }
    for (_, old) in records {
      for (_, new) in records {
        try withVolume(old.name, engine) { from in
          try withVolume(new.name, engine) { to in
            do {
              try engine.forEachDifference(from: from, to: to, in: 0..<to.byteCount) { bytes, kind in
                lines.append("'\(old.name)' to '\(new.name)': \(bytes) \(kind)")
                return true
              }
            } catch { lines.append("'\(old.name)' to '\(new.name)': \(error)") }
          }
        }
      }
    }
    return lines + (try engine.check().findings.map(\.description))
  }

  private static func withVolume(
    _ name: String, _ engine: Engine, _ body: (DiskVolume) throws -> Void
  ) throws {
    let volume = try #require(try engine.openVolume(named: name))
    defer { engine.closeVolume(volume) }
    try body(volume)
  }
}
