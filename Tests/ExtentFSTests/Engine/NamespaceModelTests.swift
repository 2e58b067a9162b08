import Devices
import Foundation
import LacunaTestSupport
import Testing

@testable import ExtentFS

/// Random trees of snapshots, clones and throwaways, against plain arrays.
@Suite(.slow) struct NamespaceModelTests {
  private static let stepCount =
    ProcessInfo.processInfo.environment["LACUNA_NAMESPACE_STEPS"].flatMap { Int($0) } ?? 100_000

  @Test func `volumes, snapshots, clones and throwaways hold what they should`() throws {
    try withSeededGenerator { generator in
      let device = try MemoryDevice(byteCount: 0, maximumByteCount: 256 << 20)
      var model = try NamespaceModel(on: device)
      for step in 0..<Self.stepCount {
        do { try model.step(&generator) } catch { throw CheckFailure("step \(step): \(error)") }
        if generator.oneIn(2000) {
          try model.readAll()
          try model.reopen(afterDropping: generator.oneIn(2) ? generator.number(below: 3) : nil)
          try model.readAll()
        }
      }
      try model.deleteAll()
      try model.reopen()
      #expect(model.engine.superblock.shared.isEmpty)
      #expect(model.engine.superblock.transientCount == 0)
      print(model.counts.sorted { $0.key < $1.key }.map { "\($0.key): \($0.value)" }.joined(separator: ", "))
    }
  }

  @Test func `a full store deletes, trims and checkpoints, and loses nothing`() throws {
    try withSeededGenerator { generator in
      for limit in [700 << 10, 1 << 20, 2 << 20] {
        let device = try MemoryDevice(byteCount: 0, maximumByteCount: UInt64(limit))
        var options = EngineOptions()
        options.limitByteCount = UInt64(limit)
        var model = try NamespaceModel(on: device, options, mayBeFull: true)
        for step in 0..<Self.stepCount / 25 {
          do { try model.step(&generator) } catch { throw CheckFailure("limit \(limit), step \(step): \(error)") }
          if generator.oneIn(2000) {
            try model.readAll()
            try model.reopen()
            try model.readAll()
          }
        }
        try model.deleteAll()
        try model.reopen()
        print(limit, model.counts.sorted { $0.key < $1.key }.map { "\($0.key): \($0.value)" }.joined(separator: ", "))
        #expect((model.counts["full"] ?? 0) > 0 && (model.counts["snapshot"] ?? 0) > 0)
      }
    }
  }
}
