import Bytes

/// What happened to a ``CrashDevice``: where it began, and every call that changed it.
package struct CrashLog: Sendable {
  /// What was durable at the start.
  package let start: MediumImage
  package let calls: [CrashDevice.Call]

  /// Makes the log of what did not happen, for tests of what looks at logs.
  package init(start: MediumImage, calls: [CrashDevice.Call]) {
    self.start = start
    self.calls = calls
  }

  /// How many moments there are to cut the power at: before each call, and after the last.
  package var crashPointCount: Int { calls.count + 1 }

  /// What a power cut right before call `point` finds. The cost grows with `point`: use a cursor to go through all.
  package func moment(at point: Int) -> CrashMoment {
    precondition(point >= 0 && point < crashPointCount, "there is no crash point \(point)")
    var cursor = CrashCursor(self)
    while cursor.point < point { cursor.advance() }
    return cursor.moment
  }
}

/// Goes through the crash points of a log in order.
package struct CrashCursor {
  private let log: CrashLog
  private let durable: MediumEditor
  private var pending: [CrashMoment.PendingCall] = []
  /// Valid until `durable` changes.
  private var image: MediumImage
  /// The number of the call before which the power would be cut.
  package private(set) var point = 0
  private var isBehindEnd = false

  /// Begins at crash point 0.
  package init(_ log: CrashLog) {
    self.log = log
    durable = MediumEditor(log.start)
    image = log.start
  }

  /// What a power cut at this point finds.
  package var moment: CrashMoment { CrashMoment(point: point, durable: image, pending: pending) }

  /// Whether there is no further crash point.
  package var isAtEnd: Bool { point == log.calls.count }

  /// Goes to the next crash point.
  package mutating func advance() {
    precondition(!isAtEnd, "no crash point is left")
    let call = log.calls[point]
    switch call {
    case .sync(let covers): settle(covers)
    case .drop: pending.removeAll()
    case .write, .discard, .grow: pending.append(.init(number: point, call: call))
    }
    point += 1
  }

  /// Goes to the next crash point, or behind the last one.
  ///
  /// - Returns: false where it was behind the last one already.
  mutating func takeStep() -> Bool {
    guard !isBehindEnd else { return false }
    if isAtEnd { isBehindEnd = true } else { advance() }
    return true
  }

  private mutating func settle(_ covers: Int) {
    let count = pending.firstIndex { $0.number >= covers } ?? pending.count
    guard count > 0 else { return }
    for settled in pending[..<count] { durable.apply(settled.call) }
    pending.removeFirst(count)
    image = durable.image()
  }
}

/// A power cut: what is surely on the medium, and what may be.
package struct CrashMoment: Sendable {
  /// A call that no sync has covered.
  package struct PendingCall: Sendable {
    package let number: Int
    package let call: CrashDevice.Call
  }

  /// What became of a pending call.
  package enum Fate: Sendable, Hashable {
    case lost
    case kept
    /// Some of it is on the medium, which part is up to the seed.
    case torn(seed: UInt64)
  }

  /// The number of the first call that did not happen.
  package let point: Int
  package let durable: MediumImage
  package let pending: [PendingCall]

  /// How many pictures of the kind asked for this moment has.
  package func pictureCount(_ pictures: Pictures) -> Int { pictures.count(pendingCount: pending.count) }

  /// A picture of the medium, the same each time for the same arguments.
  package func picture(_ number: Int, _ pictures: Pictures, seed: UInt64) -> MediumImage {
    picture(fates(number, pictures, seed: seed), pictures)
  }

  /// What picture `number` makes of each pending call.
  package func fates(_ number: Int, _ pictures: Pictures, seed: UInt64) -> [Fate] {
    var generator = SeededGenerator(seed: seed)
    let mixed = generator.next() ^ UInt64(point) &* 0x9E37_79B9_7F4A_7C15 ^ UInt64(number) << 40
    generator = SeededGenerator(seed: mixed)
    return pictures.fates(number, pendingCount: pending.count, &generator)
  }

  /// The picture in which each pending call has the fate given.
  package func picture(_ fates: [Fate], _ pictures: Pictures = Pictures(.sampled(1))) -> MediumImage {
    precondition(fates.count == pending.count, "one fate for each pending call")
    guard fates.contains(where: { $0 != .lost }) else { return durable }
    let medium = MediumEditor(durable)
    for (pending, fate) in zip(pending, fates) {
      switch fate {
      case .lost: break
      case .kept: medium.apply(pending.call)
      case .torn(let seed): medium.tear(pending.call, pictures, seed: seed)
      }
    }
    return medium.image()
  }

  /// What became of the pending calls, in lines for a person, the last ones where there are many.
  package func description(_ fates: [Fate], lines: Int = 24) -> String {
    let all = zip(pending, fates).map { pending, fate in "  call \(pending.number): \(pending.call): \(fate)" }
    let left = all.count - lines
    return (left > 0 ? ["  (\(left) earlier ones)"] : []).joined() + all.suffix(lines).joined(separator: "\n")
  }
}

extension MediumEditor {
  func apply(_ call: CrashDevice.Call) {
    switch call {
    case .write(let offset, let bytes): bytes.withUnsafeBytes { write($0, at: offset) }
    case .discard(let range): zero(range)
    case .grow(_, let to): grow(to: to)
    case .sync, .drop: break
    }
  }
}
