import Glibc
import Lacuna
import LacunaTestSupport
import NBDTestSupport
import Testing

@Suite struct `Differences of snapshots` {
  private static let blockBytes = 4096

  /// What block status and the call must say of each block, from the bytes alone: a block that differs is data or zero; one
  /// that does not may only be said to differ where it was written anew, with the same bytes.
  private func compare(_ store: ServedStore, _ old: String, _ new: String) throws {
    let volume = String(old.prefix { $0 != "@" })
    let what = "\(old)..\(new)"
    let export = "\(old)..\(new.dropFirst(volume.count + 1))"
    var before = try store.contents(old)
    let after = try store.contents(new)
    // Nothing lies behind the end, which counts as zeroes.
    before += [UInt8](repeating: 0, count: max(after.count - before.count, 0))
    let client = try store.open(export)
    try check(try client.contents() == after, "\(what) has other bytes than \(new)")
    let states = try client.allocation(of: 0..<UInt64(after.count))
    try client.disconnect()

    var extents: [VolumeDiff.Extent] = []
    var offset: UInt64?
    repeat {
      let answer = try store.control.call(DiffVolumes(from: old, to: new, offset: offset, limit: 7))
      extents += answer.extents
      offset = answer.next
    } while offset != nil

    var rewritten = 0
    try check(states.first?.offset == 0 && states.last?.end == UInt64(after.count), "\(what): \(states) has gaps")
    for state in states {
      for start in stride(from: Int(state.offset), to: Int(state.end), by: Self.blockBytes) {
        let block = start..<min(start + Self.blockBytes, Int(state.end))
        let isSame = before[block] == after[block]
        let isZero = after[block].allSatisfy { $0 == 0 }
        let extent = extents.first { $0.offset <= UInt64(start) && UInt64(start) < $0.offset + $0.length }
        switch state.state {
        case .hole: try check(isSame && extent == nil, "\(what): block at \(start) did change")
        case [.hole, .zero]:
          try check(isZero && extent?.kind == .zero, "\(what): block at \(start) is not zero")
        case .data: try check(extent?.kind == .data, "\(what): the call knows of no data at \(start)")
        default: throw CheckFailure("\(what): \(state) is no state of a difference")
        }
        if isSame && state.state == .data { rewritten += 1 }
      }
    }
    // Nearly all that is said to differ does: only what was written twice with the same bytes does not.
    try check(rewritten * Self.blockBytes * 4 <= after.count, "\(what): \(rewritten) blocks are the same")
  }

  @Test func `block status, the call and a comparison of bytes agree about random changes`() throws {
    try withSeededGenerator { generator in
      try PrivateDirectory.run { directory in
        try ServedStore.run(directory.file("s.lacuna"), ["size=4000001", "journal=1M"]) { store in
          let client = try store.open("disk")
          let size: UInt64 = 4_000_001
          for round in 0..<8 {
            _ = try store.control.call(CreateSnapshots(names: ["disk@\(round)"]))
            for _ in 0..<40 {
              let range = generator.range(below: size, longest: generator.oneIn(3) ? 200_000 : 9_000)
              let count = range.upperBound - range.lowerBound
              switch generator.number(below: 6) {
              case 0: try client.zero(count, at: range.lowerBound)
              case 1: try client.zero(count, at: range.lowerBound, flags: .noHole)
              case 2: try client.trim(count, at: range.lowerBound)
              default: try client.write(generator.pattern(Int(count)), at: range.lowerBound)
              }
            }
          }
          for round in 0..<8 {
            // Backwards too, and across several.
            try compare(store, "disk@\(round)", "disk@\(generator.number(below: 8))")
          }
          try compare(store, "disk@0", "disk@7")
          // From a snapshot that the volume was rolled back to, and of other sizes.
          _ = try store.control.call(RollBackVolume(snapshot: "disk@3", force: true))
          _ = try store.control.call(ResizeVolume(name: "disk", size: 5 << 20))
          let larger = try store.open("disk")
          try larger.write(generator.pattern(20_000), at: 4_500_000)
          _ = try store.control.call(CreateSnapshots(names: ["disk@larger"]))
          try compare(store, "disk@3", "disk@larger")
          try compare(store, "disk@larger", "disk@5")
        }
      }
    }
  }
}
