import Bytes
import Devices
import Glibc
import LacunaTestSupport
import Testing

/// The device that loses power: what it keeps while it has it, and what its pictures show afterwards.
@Suite struct CrashDeviceTests {
  @Test func `it is a device like any other while the power is on`() throws {
    try withSeededGenerator { generator in
      let device = CrashDevice(byteCount: 20_000, maximumByteCount: 40_000)
      var model = ReferenceDisk(byteCount: 20_000)
      for _ in 0..<400 {
        let range = generator.range(below: device.byteCount, longest: 9_000)
        switch generator.number(below: 12) {
        case 0..<5:
          let bytes = generator.nonZeroBytes(Int(range.length))
          try device.write(bytes: bytes, at: range.lowerBound)
          bytes.withUnsafeBytes { model.write($0, at: Int(range.lowerBound)) }
        case 5..<7:
          try device.discard(range)
          model.zero(Int(range.lowerBound)..<Int(range.upperBound))
        case 7: try device.sync()
        case 8:
          let length = min(40_000, device.byteCount + generator.number(below: 500))
          try device.grow(to: length)
          model.resize(to: Int(length))
        default: try device.bytes(range).withUnsafeBytes { try model.check($0, at: Int(range.lowerBound)) }
        }
      }
      // All of it is in the last picture as well, and in a device made of that.
      let log = device.log
      let moment = log.moment(at: log.calls.count)
      let all = moment.picture(1, Pictures(.structured), seed: 0)
      #expect(all.holdsTheSame(as: device.image))
      #expect(all.bytes(0..<all.byteCount) == model.bytes)
      #expect(try CrashDevice(all).bytes(0..<all.byteCount) == model.bytes)
    }
  }

  @Test func `ranges outside the device are refused and not recorded`() throws {
    let device = CrashDevice(byteCount: 1000, maximumByteCount: 2000)
    expectErrno(EINVAL) { try device.write(bytes: [1, 2], at: 999) }
    expectErrno(EINVAL) { try device.write(bytes: [1], at: .max) }
    expectErrno(EINVAL) { _ = try device.bytes(1000..<1001) }
    expectErrno(EINVAL) { try device.discard(0..<1001) }
    expectErrno(ENOSPC) { try device.grow(to: 2001) }
    device.setMaximumByteCount(3000)
    try device.grow(to: 3000)
    try device.grow(to: 10)
    #expect(device.byteCount == 3000)
    #expect(device.log.calls == [.grow(from: 1000, to: 3000), .grow(from: 3000, to: 3000)])
  }

  @Test func `a sync makes what came before it durable, and nothing that came while it was on its way`() throws {
    let hook = Locked<(@Sendable () throws -> Void)?>(nil)
    let device = CrashDevice(MediumImage(byteCount: 512)) {
      let body = hook.withLock { $0 }
      #expect(throws: Never.self) { try body?() }
    }
    hook.withLock { $0 = { try device.write(bytes: [2], at: 1) } }
    try device.write(bytes: [1], at: 0)
    try device.sync()
    let moment = device.log.moment(at: device.callCount)
    #expect(moment.durable.bytes(0..<2) == [1, 0])
    #expect(moment.pending.map(\.number) == [1])
    #expect(device.log.moment(at: 2).pending.map(\.number) == [0, 1])
  }

  @Test func `pictures are all subsets of the unsynced calls, applied in order`() throws {
    let device = CrashDevice(byteCount: 512)
    try device.write(bytes: [1, 1], at: 0)
    try device.sync()
    try device.write(bytes: [2], at: 0)
    try device.write(bytes: [3, 3], at: 0)
    try device.write(bytes: [4], at: 2)
    let moment = device.log.moment(at: 5)
    let pictures = Pictures(.subsets(most: 8))
    #expect(moment.pictureCount(pictures) == 8)
    let found = (0..<8).map { moment.picture($0, pictures, seed: 0).bytes(0..<3) }
    #expect(
      found == [
        [1, 1, 0], [2, 1, 0], [3, 3, 0], [3, 3, 0], [1, 1, 4], [2, 1, 4], [3, 3, 4], [3, 3, 4],
      ])
  }

  @Test func `structured pictures are none, all, each missing, each alone and each prefix`() throws {
    let device = CrashDevice(byteCount: 512)
    for index in 0..<3 { try device.write(bytes: [1], at: UInt64(index)) }
    let moment = device.log.moment(at: 3)
    let pictures = Pictures(.structured)
    let found = (0..<moment.pictureCount(pictures)).map { moment.picture($0, pictures, seed: 0).bytes(0..<3) }
    #expect(
      found == [
        [0, 0, 0], [1, 1, 1], [0, 1, 1], [1, 0, 1], [1, 1, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0], [1, 0, 0],
        [1, 1, 0],
      ])
  }

  @Test func `a cursor finds at each point what a look from the start does`() throws {
    let device = CrashDevice(byteCount: 8192)
    for index in 0..<30 {
      try device.write(bytes: [UInt8(index)], at: UInt64(index * 100))
      if index % 7 == 6 { try device.sync() }
      if index % 11 == 10 { try device.discard(0..<500) }
      if index == 20 { device.dropUnsynced(visibly: true) }
    }
    let log = device.log
    var cursor = CrashCursor(log)
    for point in 0..<log.crashPointCount {
      let moment = log.moment(at: point)
      #expect(cursor.moment.point == point)
      #expect(cursor.moment.durable.holdsTheSame(as: moment.durable))
      #expect(cursor.moment.pending.map(\.number) == moment.pending.map(\.number))
      if !cursor.isAtEnd { cursor.advance() }
    }
    #expect(cursor.isAtEnd)
  }

  @Test func `a torn write leaves each sector old, new or garbage, and its neighbours alone`() throws {
    let device = CrashDevice(byteCount: 16 * 512)
    try device.write(bytes: [UInt8](repeating: 1, count: 16 * 512), at: 0)
    try device.sync()
    try device.write(bytes: [UInt8](repeating: 2, count: 8 * 512), at: 4 * 512)
    let moment = device.log.moment(at: 3)
    var seen: Set<Sector> = []
    for seed in 0..<200 {
      let image = moment.picture([.torn(seed: UInt64(seed))])
      for sector in 0..<16 {
        let kind = Sector(image.bytes(UInt64(sector * 512)..<UInt64(sector * 512 + 512)))
        if (4..<12).contains(sector) { seen.insert(kind) } else { #expect(kind == .old) }
      }
      let clean = moment.picture([.torn(seed: UInt64(seed))], Pictures(.sampled(1), garbage: false))
      for sector in 4..<12 {
        let kind = Sector(clean.bytes(UInt64(sector * 512)..<UInt64(sector * 512 + 512)))
        #expect(kind == .old || kind == .new)
      }
    }
    #expect(seen == Set(Sector.allCases))
  }

  @Test func `garbage may reach as far as a large sector does`() throws {
    let device = CrashDevice(MediumImage(byteCount: 8192))
    try device.write(bytes: [UInt8](repeating: 1, count: 8192), at: 0)
    try device.sync()
    try device.write(bytes: [2], at: 5000)
    let moment = device.log.moment(at: 3)
    var isHit = false
    for seed in 0..<50 {
      let image = moment.picture([.torn(seed: UInt64(seed))], Pictures(.sampled(1), garbageByteCount: 4096))
      #expect(image.bytes(0..<4096) == [UInt8](repeating: 1, count: 4096))
      if image.bytes(4096..<4097) != [1] && image.bytes(8191..<8192) != [1] { isHit = true }
    }
    #expect(isHit)
  }

  @Test func `an unsynced length is old, new or between, and what lies behind it is gone`() throws {
    let device = CrashDevice(byteCount: 4096, maximumByteCount: 20_480)
    try device.grow(to: 20_480)
    try device.write(bytes: [UInt8](repeating: 7, count: 8192), at: 0)
    let moment = device.log.moment(at: 2)
    #expect(moment.picture([.lost, .kept]).byteCount == 4096)
    #expect(moment.picture([.lost, .kept]).bytes(4095..<4096) == [7])
    #expect(moment.picture([.kept, .lost]).byteCount == 20_480)
    let lengths = Set((0..<100).map { moment.picture([.torn(seed: $0), .lost]).byteCount })
    #expect(lengths.count > 20)
    #expect(lengths.contains { $0 % 4096 != 0 } && lengths.allSatisfy { $0 >= 4096 && $0 <= 20_480 })
    // A device of the short picture grows with zeroes.
    let again = CrashDevice(moment.picture([.lost, .kept]), maximumByteCount: 20_480)
    try again.grow(to: 8192)
    #expect(try again.bytes(4095..<4098) == [7, 0, 0])
  }

  @Test func `an unsynced discard leaves old bytes or zeroes`() throws {
    let device = CrashDevice(byteCount: 16_384)
    try device.write(bytes: [UInt8](repeating: 7, count: 16_384), at: 0)
    try device.sync()
    try device.discard(100..<16_000)
    let moment = device.log.moment(at: 3)
    #expect(moment.picture([.lost]).bytes(99..<101) == [7, 7])
    #expect(moment.picture([.kept]).bytes(99..<101) == [7, 0])
    let torn = Set((0..<50).map { moment.picture([.torn(seed: $0)]).bytes(4095..<4097) })
    #expect(torn == [[0, 0], [0, 7], [7, 0], [7, 7]])
  }

  @Test func `sampled pictures depend on the seed, and on nothing else`() throws {
    let device = CrashDevice(byteCount: 65_536)
    for index in 0..<16 { try device.write(bytes: [UInt8](repeating: 9, count: 4096), at: UInt64(index) * 4096) }
    let moment = device.log.moment(at: 16)
    let pictures = Pictures(.sampled(64))
    #expect(moment.pictureCount(pictures) == 64)
    let fates = (0..<64).map { moment.fates($0, pictures, seed: 5) }
    #expect(fates == (0..<64).map { moment.fates($0, pictures, seed: 5) })
    #expect(fates != (0..<64).map { moment.fates($0, pictures, seed: 6) })
    #expect(fates[0].allSatisfy { $0 == .lost } && fates[1].allSatisfy { $0 == .kept })
    #expect(Set(fates.map { "\($0)" }).count > 50)
    #expect(fates.joined().contains { $0 != .lost && $0 != .kept })
    let whole = (0..<64).flatMap { moment.fates($0, Pictures(.sampled(64), tears: false), seed: 5) }
    #expect(whole.allSatisfy { $0 == .lost || $0 == .kept })
    #expect(moment.description(fates[1], lines: 2).contains("(14 earlier ones)"))
  }

  @Test func `writing to a picture changes neither the picture nor its siblings`() throws {
    let device = CrashDevice(byteCount: 8192)
    try device.write(bytes: [UInt8](repeating: 1, count: 8192), at: 0)
    let image = device.image
    let (left, right) = (CrashDevice(image), CrashDevice(image))
    try left.write(bytes: [2], at: 0)
    try right.discard(4096..<8192)
    try device.write(bytes: [3], at: 1)
    #expect(image.bytes(0..<8192) == [UInt8](repeating: 1, count: 8192))
    #expect(try left.bytes(0..<2) == [2, 1])
    #expect(try right.bytes(0..<2) == [1, 1])
    #expect(try left.bytes(4096..<4097) == [1])
    #expect(try device.bytes(0..<2) == [1, 3])
  }

  @Test func `after a power cut every call fails and the last write may be there`() throws {
    let device = CrashDevice(byteCount: 1024)
    device.cutPower(atCall: 2)
    try device.write(bytes: [1], at: 0)
    try device.sync()
    #expect(!device.isPowerCut)
    for _ in 0..<2 { expectErrno(CrashDevice.powerCutErrno) { try device.write(bytes: [2], at: 0) } }
    #expect(device.isPowerCut)
    expectErrno(CrashDevice.powerCutErrno) { try device.sync() }
    expectErrno(CrashDevice.powerCutErrno) { _ = try device.bytes(0..<1) }
    expectErrno(CrashDevice.powerCutErrno) { try device.discard(0..<1) }
    expectErrno(CrashDevice.powerCutErrno) { try device.grow(to: 1024) }
    #expect(device.log.calls.count == 3)
    let moment = device.log.moment(at: 3)
    #expect(moment.picture([.lost]).bytes(0..<1) == [1])
    #expect(moment.picture([.kept]).bytes(0..<1) == [2])
  }

  @Test func `a sync that lies makes nothing durable`() throws {
    let device = CrashDevice(byteCount: 512)
    device.setSyncsLie(true)
    try device.write(bytes: [1], at: 0)
    try device.sync()
    #expect(device.log.moment(at: 2).pending.count == 1)
    device.setSyncsLie(false)
    try device.sync()
    #expect(device.log.moment(at: 3).pending.isEmpty)
  }

  @Test func `a restart takes what is there as durable`() throws {
    let device = CrashDevice(byteCount: 512)
    try device.write(bytes: [1], at: 0)
    device.restart()
    #expect(device.callCount == 0)
    #expect(device.log.moment(at: 0).durable.bytes(0..<1) == [1])
  }

  private enum Sector: CaseIterable, Hashable {
    case old, new, torn, zeroes, garbage

    init(_ bytes: [UInt8]) {
      let values = Set(bytes)
      self =
        switch values {
        case [1]: .old
        case [2]: .new
        case [0]: .zeroes
        case [1, 2]: .torn
        default: .garbage
        }
    }
  }
}

/// Many threads on one device. The thread sanitizer runs these.
@Suite struct CrashDeviceConcurrencyTests {
  @Test func `threads share pictures without disturbing each other`() throws {
    let device = CrashDevice(byteCount: 65_536)
    try device.write(bytes: [UInt8](repeating: 1, count: 65_536), at: 0)
    let moment = device.log.moment(at: 1)
    try inThreads(4) { thread in
      for round in 0..<50 {
        let own = CrashDevice(moment.picture(1, Pictures(.structured), seed: 0))
        try own.write(bytes: [UInt8](repeating: UInt8(thread), count: 5000), at: UInt64(round * 1000))
        try own.discard(0..<10)
        try check(try own.bytes(60_000..<60_001) == [1], "a page of another thread")
        let shared = try device.bytes(0..<100)
        try check(shared == [UInt8](repeating: 1, count: 100), "a page of the origin")
        if thread == 0 { try device.write(bytes: [UInt8](repeating: 1, count: 4096), at: 4096) }
      }
    }
  }
}

/// Expects a `DeviceError` with `errno`.
func expectErrno(_ errno: Int32, _ body: () throws -> Void) {
  let error = #expect(throws: DeviceError.self) { try body() }
  #expect(error?.errno == errno)
}
