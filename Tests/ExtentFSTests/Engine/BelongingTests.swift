import Devices
import LacunaTestSupport
import Testing

@testable import ExtentFS

/// Which snapshots belong to a volume: those that were taken of it, and not those of an earlier one that had its name.
@Suite struct `Snapshots of an earlier volume of the same name` {
  private static let byteCount: UInt64 = 64 << 10

  private func run(_ body: (Engine) throws -> Void) throws {
    let device = try MemoryDevice(byteCount: 0, maximumByteCount: 64 << 20)
    var format = FormatOptions()
    format.blockByteCount = 1024
    format.journalByteCount = 65536
    try Engine.format(device, format)
    let engine = try Engine.open(device, EngineOptions()).engine
    // An earlier vm with two snapshots, and a new one with one.
    try create("vm", filledWith: 1, engine)
    try engine.snapshot([("vm", "vm@a")], createdSeconds: 0)
    try engine.snapshot([("vm", "vm@b")], createdSeconds: 0)
    try engine.delete(["vm"], force: false)
    try create("vm", filledWith: 2, engine)
    try engine.snapshot([("vm", "vm@c")], createdSeconds: 0)
    try body(engine)
    while try engine.dropDeleted() {}
    try engine.close()
    #expect(try StoreCheck.findings(on: device) == [])
  }

  private func create(_ name: String, filledWith byte: UInt8, _ engine: Engine) throws {
    let volume = try engine.createVolume(named: name, byteCount: Self.byteCount, createdSeconds: 0)
    try [UInt8](repeating: byte, count: 1024).withUnsafeBytes { try volume.write($0, at: 0) }
    engine.closeVolume(volume)
  }

  /// All names, each with its first byte.
  private func contents(_ engine: Engine) throws -> [String: UInt8] {
    var all: [String: UInt8] = [:]
    for (_, record) in try engine.volumeRecords() where !record.isTransient {
      let volume = try #require(try engine.openVolume(named: record.name))
      defer { engine.closeVolume(volume) }
      var byte: UInt8 = 0
      try withUnsafeMutableBytes(of: &byte) { try volume.read(into: $0, at: 0) }
      all[record.name] = byte
    }
    return all
  }

  private func refused(_ code: ExtentFSError.Code, naming word: String, _ body: () throws -> Void) {
    let error = #expect(throws: ExtentFSError.self) { try body() }
    #expect(error?.code == code && error?.facts.contains(word) == true, "\(String(describing: error))")
  }

  @Test func `stay when the new one is deleted with its snapshots`() throws {
    try run { engine in
      #expect(try engine.findDoomed(["vm"], withSnapshots: true) == ["vm", "vm@c"])
      #expect(try engine.delete(["vm"], withSnapshots: true, force: false).map(\.record.name) == ["vm", "vm@c"])
      #expect(try contents(engine) == ["vm@a": 1, "vm@b": 1])
      // They can be deleted by their own names.
      try engine.delete(["vm@b", "vm@a"], force: false)
      #expect(try contents(engine) == [:])
    }
  }

  @Test func `keep their names when the new one is renamed, and hold nothing up`() throws {
    try run { engine in
      try engine.rename("vm", to: "other")
      #expect(try contents(engine) == ["other": 2, "other@c": 2, "vm@a": 1, "vm@b": 1])
      // And a third vm has nothing to do with them either.
      try engine.clone("vm@a", as: "vm", createdSeconds: 0)
      try engine.rename("vm", to: "third")
      #expect(try contents(engine) == ["other": 2, "other@c": 2, "vm@a": 1, "vm@b": 1, "third": 1])
      // A volume can come back to the name with its snapshots.
      try engine.rename("other", to: "vm")
      #expect(try engine.delete(["vm"], withSnapshots: true, force: false).map(\.record.name) == ["vm", "vm@c"])
    }
  }

  @Test func `are not what the new one is rolled back to`() throws {
    try run { engine in
      refused(.invalidArgument, naming: "vm@a") { try engine.rollback("vm", to: "vm@a", force: true) }
      #expect(try contents(engine)["vm"] == 2)
      try engine.rollback("vm", to: "vm@c", force: false)
      #expect(try contents(engine) == ["vm": 2, "vm@a": 1, "vm@b": 1, "vm@c": 2])
    }
  }

  @Test func `have names that the new one's cannot take, and that is said`() throws {
    try run { engine in
      let before = try contents(engine)
      refused(.nameTaken, naming: "another volume") { try engine.snapshot([("vm", "vm@a")], createdSeconds: 0) }
      refused(.nameTaken, naming: "another volume") { try engine.rename("vm@c", to: "vm@a") }
      refused(.nameTaken, naming: "already") { try engine.rename("vm@b", to: "vm@a") }
      #expect(try contents(engine) == before)
      try create("more", filledWith: 3, engine)
      try engine.snapshot([("more", "more@a")], createdSeconds: 0)
      try engine.rename("vm", to: "elsewhere")
      refused(.nameTaken, naming: "vm@a") { try engine.rename("more", to: "vm") }
      #expect(
        try contents(engine) == ["elsewhere": 2, "elsewhere@c": 2, "more": 3, "more@a": 3, "vm@a": 1, "vm@b": 1])
    }
  }

  @Test func `and the snapshot of a snapshot belong to whom that belongs`() throws {
    try run { engine in
      try engine.snapshot([("vm@a", "vm@old")], createdSeconds: 0)
      try engine.snapshot([("vm@c", "vm@new")], createdSeconds: 0)
      #expect(
        try engine.delete(["vm"], withSnapshots: true, force: false).map(\.record.name) == ["vm", "vm@c", "vm@new"])
      #expect(try contents(engine) == ["vm@a": 1, "vm@b": 1, "vm@old": 1])
    }
  }
}
