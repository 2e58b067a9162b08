import Bytes

/// Which pictures of a medium to make after a power cut, and how mean they are.
package struct Pictures: Sendable {
  package enum Choice: Sendable {
    /// Nothing kept, all kept, and then as many random ones as make this number.
    case sampled(Int)
    /// Nothing kept, all kept, each call missing alone, each call kept alone, each prefix.
    case structured
    /// Every subset where there are at most this many pending calls, else as `structured`.
    case subsets(most: Int)
  }

  package var choice: Choice
  /// Whether writes may be torn between sectors of 512 bytes.
  package var tears: Bool
  /// Whether a sector that was being written may hold anything.
  package var garbage: Bool
  /// How much around a byte that was being written turns to garbage at once: 512, or 4096 for the sector of many disks.
  package var garbageByteCount: UInt64

  package init(_ choice: Choice, tears: Bool = true, garbage: Bool = true, garbageByteCount: UInt64 = 512) {
    self.choice = choice
    self.tears = tears
    self.garbage = garbage
    self.garbageByteCount = garbageByteCount
  }

  /// How many there are with `pendingCount` calls pending.
  func count(pendingCount: Int) -> Int {
    switch choice {
    case _ where pendingCount == 0: 1
    case .sampled(let count): tears ? count : min(count, 1 << min(pendingCount, 30))
    case .subsets(let most) where pendingCount <= most: 1 << pendingCount
    case .structured, .subsets: 2 + 3 * pendingCount
    }
  }

  func fates(_ number: Int, pendingCount: Int, _ generator: inout SeededGenerator) -> [CrashMoment.Fate] {
    let all = 0..<pendingCount
    switch choice {
    case .sampled: return sampled(number, all, &generator)
    case .subsets(let most) where pendingCount <= most:
      return all.map { number >> $0 & 1 == 1 ? .kept : .lost }
    case .structured, .subsets: return Self.structured(number, all)
    }
  }

  private static func structured(_ number: Int, _ all: Range<Int>) -> [CrashMoment.Fate] {
    guard number >= 2, let count = all.last.map({ $0 + 1 }) else { return all.map { _ in number == 1 ? .kept : .lost } }
    let (group, index) = (number - 2).quotientAndRemainder(dividingBy: count)
    return all.map {
      switch group {
      case 0: $0 == index ? .lost : .kept
      case 1: $0 == index ? .kept : .lost
      default: $0 < index ? .kept : .lost
      }
    }
  }

  private func sampled(_ number: Int, _ all: Range<Int>, _ generator: inout SeededGenerator) -> [CrashMoment.Fate] {
    guard number >= 2, !all.isEmpty else { return all.map { _ in number == 1 ? .kept : .lost } }
    let chosen = generator.number(below: all.count)
    let style = generator.number(below: 9)
    return all.map { index in
      switch style {
      case 0: index < chosen ? .kept : .lost
      case 1: index < chosen ? .kept : index == chosen ? torn(&generator) : .lost
      case 2: index == chosen ? .lost : .kept
      case 3: index == chosen ? .kept : .lost
      case 4: index < chosen ? .lost : .kept
      case 5: index == chosen ? torn(&generator) : .kept
      case 6: generator.oneIn(2) ? .kept : .lost
      case 7: generator.oneIn(3) ? torn(&generator) : generator.oneIn(2) ? .kept : .lost
      default: generator.oneIn(8) ? .lost : generator.oneIn(8) ? torn(&generator) : .kept
      }
    }
  }

  private func torn(_ generator: inout SeededGenerator) -> CrashMoment.Fate {
    let seed = generator.next()
    return tears ? .torn(seed: seed) : seed & 1 == 1 ? .kept : .lost
  }
}

extension MediumEditor {
  /// Leaves a part of `call` on the medium.
  func tear(_ call: CrashDevice.Call, _ pictures: Pictures, seed: UInt64) {
    var generator = SeededGenerator(seed: seed)
    switch call {
    case .write(let offset, let bytes):
      guard let range = Range(offset: offset, byteCount: bytes.count), !range.isEmpty else { return }
      bytes.withUnsafeBytes { tearWrite($0, range, pictures, &generator) }
    case .discard(let range):
      for part in range.parts(alignedTo: 4096) where generator.oneIn(2) { zero(part) }
    case .grow(let from, let to):
      guard to > from else { return }
      let length = from + generator.number(below: to - from + 1)
      grow(to: generator.oneIn(2) ? length : max(from, length & ~4095))
    case .sync, .drop: break
    }
  }

  private func tearWrite(
    _ bytes: UnsafeRawBufferPointer, _ range: Range<UInt64>, _ pictures: Pictures, _ generator: inout SeededGenerator
  ) {
    let sectors = range.parts(alignedTo: 512)
    let style = generator.number(below: 3)
    let chosen = generator.number(below: sectors.count)
    for (index, sector) in sectors.enumerated() {
      let isNew =
        switch style {
        case 0: index < chosen
        case 1: index > chosen
        default: generator.oneIn(2)
        }
      if isNew { write(bytes.part(sector, of: range), at: sector.lowerBound) }
    }
    guard pictures.garbage, generator.oneIn(2) else { return }
    spoil(sectors[chosen], with: bytes.part(sectors[chosen], of: range), pictures, &generator)
  }

  /// Puts what a shorn write leaves where `sector` is: anything, zeroes, or new bytes up to somewhere and then old ones.
  private func spoil(
    _ sector: Range<UInt64>, with new: UnsafeRawBufferPointer, _ pictures: Pictures, _ generator: inout SeededGenerator
  ) {
    let start = sector.lowerBound / pictures.garbageByteCount * pictures.garbageByteCount
    let whole = start..<start + pictures.garbageByteCount
    switch generator.number(below: 3) {
    case 0: zero(whole)
    case 1: write(UnsafeRawBufferPointer(rebasing: new[..<generator.number(below: new.count)]), at: sector.lowerBound)
    default: generator.nonZeroBytes(Int(whole.length)).withUnsafeBytes { write($0, at: start) }
    }
  }
}

extension Range<UInt64> {
  /// The pieces into which the multiples of `byteCount` cut this range.
  fileprivate func parts(alignedTo byteCount: UInt64) -> [Range<UInt64>] {
    stride(from: lowerBound / byteCount * byteCount, to: upperBound, by: Int(byteCount)).map {
      ($0..<$0 + byteCount).clamped(to: self)
    }
  }
}

extension UnsafeRawBufferPointer {
  /// The bytes of `part`, where this buffer holds those of `range`.
  fileprivate func part(_ part: Range<UInt64>, of range: Range<UInt64>) -> UnsafeRawBufferPointer {
    let start = Int(part.lowerBound - range.lowerBound)
    return UnsafeRawBufferPointer(rebasing: self[start..<start + Int(part.length)])
  }
}
