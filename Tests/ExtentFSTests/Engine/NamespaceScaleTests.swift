import Devices
import LacunaTestSupport
import SystemPackage
import Testing

@testable import ExtentFS

/// A store with 10,000 volumes and 10,000 snapshots.
@Suite(.slow) struct NamespaceScaleTests {
  private static let count = 10_000

  private static func name(_ number: Int) -> String { "vms/host\(number % 100)/disk-\(number)" }

  /// The median of the processor time that `body` takes of this thread, which gets a number each time: others may be using
  /// the machine.
  private static func median(_ count: Int, _ body: (Int) throws -> Void) rethrows -> Duration {
    let times = try (0..<count).map { number in
      let start = ThreadClock.now()
      try body(number)
      return ThreadClock.now() - start
    }
    return times.sorted()[count / 2]
  }

  private static func milliseconds(_ duration: Duration) -> String {
    "\((duration / .microseconds(1)).rounded() / 1000) ms"
  }

  private static func open(_ path: String) throws -> Engine {
    try Engine.open(try FileDevice(opening: FilePath(path)), EngineOptions()).engine
  }

  private static func openingTime(_ path: String) throws -> Duration {
    try (0..<5).map { _ in
      let start = ThreadClock.now()
      let engine = try open(path)
      let time = ThreadClock.now() - start
      try engine.close()
      return time
    }.min() ?? .zero
  }

  /// Makes volumes and snapshots, and tells how long one took, while there were many.
  private static func make(_ engine: Engine) throws -> [(what: String, time: Duration)] {
    let bytes = [UInt8](repeating: 3, count: 4096)
    func create(_ number: Int) throws {
      let volume = try engine.createVolume(named: name(number), byteCount: 1 << 30, createdSeconds: 0)
      if number % 100 == 0 { try bytes.withUnsafeBytes { try volume.write($0, at: 1 << 20) } }
      engine.closeVolume(volume)
    }
    let first = try median(100) { try create($0) }
    // Most of them in one checkpoint: what many would leave is the same.
    try engine.checkpoints.run { plan throws(ExtentFSError) in
      for number in 100..<count - 100 {
        _ = try plan.catalog.enter(
          InodeRecord(kind: .volume, name: name(number), byteCount: 1 << 30, createdSeconds: 0))
      }
    }
    let last = try median(100) { try create(count - 100 + $0) }
    for start in stride(from: 0, to: count, by: 2000) {
      let pairs = (start..<start + 2000).map { (volume: name($0), snapshot: "\(name($0))@monday") }
      try engine.snapshot(pairs, createdSeconds: 0)
    }
    return [
      ("the first volumes", first), ("the last volumes", last),
      (
        "snapshot",
        try median(50) {
          try engine.snapshot([(name($0 * 97), "\(name($0 * 97))@tuesday")], createdSeconds: 0)
        }
      ),
    ]
  }

  /// Uses some of many volumes and snapshots, and tells how long each kind of use took.
  private static func use(_ engine: Engine) throws -> [(what: String, time: Duration)] {
    let look = try median(500) { number in
      let name = name(number * 7919 % count) + (number % 2 == 0 ? "@monday" : "")
      try #require(try engine.findVolume(named: name) != nil)
    }
    let open = try median(500) { number in
      engine.closeVolume(try #require(try engine.openVolume(named: name(number * 104_729 % count))))
    }
    let clone = try median(50) { try engine.clone("\(name($0))@monday", as: "c\($0)", createdSeconds: 0) }
    let rename = try median(20) { try engine.rename("c\($0)", to: "d\($0)") }
    let throwaway = try median(100) {
      try engine.discardEphemeralClone(try engine.makeEphemeralClone(of: "\(name($0))@monday"))
    }
    let rollback = try median(50) { try engine.rollback(name($0), to: "\(name($0))@monday", force: false) }
    let delete = try median(50) { try engine.delete([name($0 * 101) + "@monday"], force: false) }
    while try engine.dropDeleted() {}
    return [
      ("look-up", look), ("opening one", open), ("clone", clone), ("rename", rename), ("throwaway", throwaway),
      ("rollback", rollback), ("delete", delete),
    ]
  }

  @Test func `ten thousand volumes and as many snapshots cost no more than a few`() throws {
    try withTestDirectory { directory in
      let path = directory + "/store"
      do {
        var format = FormatOptions()
        format.journalByteCount = 1 << 20
        try Engine.format(try FileDevice(creating: FilePath(path), byteCount: 0), format)
      }
      let empty = try Self.openingTime(path)
      var times: [(what: String, time: Duration)] = []
      do {
        let engine = try Self.open(path)
        times += try Self.make(engine)
        times += try Self.use(engine)
        #expect(try engine.volumeRecords().count == 2 * Self.count + 50)
        try engine.close()
      }
      let full = try Self.openingTime(path)
      #expect(try StoreCheck.findings(on: try FileDevice(opening: FilePath(path), access: .readOnly)) == [])
      print(
        "10,000 volumes and 10,000 snapshots, medians:",
        times.map { "\($0.what) \(Self.milliseconds($0.time))" }.joined(separator: ", "),
        "; opening the store \(Self.milliseconds(empty)) when it was empty, and \(Self.milliseconds(full)) now")
      // Generous: a debug build.
      for (what, time) in times {
        let limit: Duration = what == "look-up" || what == "opening one" ? .milliseconds(10) : .milliseconds(300)
        #expect(time < limit, "\(what): \(time)")
      }
      #expect(full < empty * 3 + .milliseconds(50))
    }
  }
}
