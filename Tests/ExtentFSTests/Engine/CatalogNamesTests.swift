import Devices
import LacunaTestSupport
import Testing

@testable import ExtentFS

/// Names whose hashes collide. With 64 bits nobody has seen that happen, so the hash here has a few values only.
@Suite(.slow) struct CatalogNamesTests {
  /// Hashes that make long rows of neighbours, which go round the end of all keys.
  private static let hashes: [(name: String, key: @Sendable (String) -> UInt64)] = [
    ("three keys", { UInt64($0.utf8.reduce(0) { $0 &* 31 &+ UInt64($1) } % 3) &- 1 }),
    ("one key, the last", { _ in .max }),
    ("keys with gaps", { UInt64($0.utf8.reduce(0) { $0 &* 31 &+ UInt64($1) } % 7) &* 3 &- 9 }),
  ]

  @Test(arguments: hashes.indices) func `names of one hash are found, whichever of them come and go`(_ index: Int)
    throws
  {
    try withSeededGenerator { generator in
      let device = try MemoryDevice(byteCount: 0, maximumByteCount: 16 << 20)
      var format = FormatOptions()
      format.blockByteCount = 1024
      format.journalByteCount = 65536
      try Engine.format(device, format)
      let engine = try Engine.open(device, EngineOptions()).engine
      var model: [String: UInt64] = [:]
      for round in 0..<25 {
        // Some changes of one checkpoint, then the trees have them.
        var catalog = Catalog(nodes: engine.nodes, superblock: engine.superblock)
        catalog.nameKey = Self.hashes[index].key
        let editor = CatalogEditor(catalog)
        for step in 0..<12 {
          let name = "n\(generator.number(below: 24))"
          switch (model[name], generator.number(below: 3)) {
          case (nil, _):
            model[name] = try editor.enter(InodeRecord(kind: .volume, name: name, byteCount: 1, createdSeconds: 0))
          case (let inode?, 0):
            let new = "n\(24 + generator.number(below: 24))"
            guard model[new] == nil else { continue }
            try editor.rename(inode, to: new)
            model[new] = model.removeValue(forKey: name)
          case (let inode?, _):
            let record = try #require(try editor.record(of: inode))
            try editor.remove(nameOf: record)
            try editor.setRecord(nil, of: inode)
            model[name] = nil
          }
          for number in 0..<48 {
            let found = try editor.find("n\(number)").found
            try check(
              found?.inode == model["n\(number)"] && found.map { $0.record.name == "n\(number)" } ?? true,
              "round \(round), step \(step): n\(number) is \(String(describing: found?.inode))")
          }
        }
        try engine.checkpoints.withTurn { turn throws(ExtentFSError) in try turn.write(CheckpointPlan(editor)) }
        catalog = Catalog(nodes: engine.nodes, superblock: engine.superblock)
        catalog.nameKey = Self.hashes[index].key
        for number in 0..<48 {
          try check(
            try catalog.find("n\(number)")?.inode == model["n\(number)"], "round \(round): n\(number) was lost")
        }
      }
      #expect(model.count > 4)
    }
  }
}
