/// Some of the pages of a checksum table. Guarded by the stripe's lock.
struct ChecksumStripe {
  /// How many checksums a page has.
  let valueCount: Int
  /// How many pages there are at most, as long as enough of them are clean.
  let pageLimit: Int
  private var pages: [UInt64: ChecksumPage] = [:]
  /// The same pages, in the order in which the sweep for room goes round.
  private var clock: ContiguousArray<ChecksumPage> = []
  private var hand = 0
  /// How often checksums were found in memory, and how often they were not.
  var hits: UInt64 = 0
  var misses: UInt64 = 0

  /// How many pages a sweep looks at.
  private static let sweepLimit = 32

  init(valueCount: Int, pageLimit: Int) {
    self.valueCount = valueCount
    self.pageLimit = pageLimit
  }

  /// The page in memory.
  @inline(__always)
  func page(_ number: UInt64) -> ChecksumPage? {
    guard let page = pages[number] else { return nil }
    page.isReferenced = true
    return page
  }

  @inline(__always)
  mutating func note(isHit: Bool) { if isHit { hits &+= 1 } else { misses &+= 1 } }

  /// How many pages are in memory.
  var pageCount: Int { clock.count }

  /// The page in memory, or a new one of which nothing is known.
  @inline(__always)
  mutating func pageToSet(_ number: UInt64) -> ChecksumPage { page(number) ?? insert(number) }

  /// The numbers of the pages with values that no superblock leads to.
  func dirtyPages() -> [UInt64] { clock.filter { !$0.dirty.isEmpty }.map(\.number) }

  /// Ends a checkpoint.
  mutating func finish(_ end: (ChecksumPage) -> Void) {
    for page in clock { end(page) }
    for _ in 0..<2 * clock.count where clock.count > pageLimit {
      if let index = sweepOne() { remove(at: index) }
    }
  }

  private mutating func insert(_ number: UInt64) -> ChecksumPage {
    let page = ChecksumPage(number: number, count: valueCount)
    pages[number] = page
    if clock.count >= pageLimit, let index = sweep() {
      pages[clock[index].number] = nil
      clock[index] = page
    } else {
      clock.append(page)
    }
    return page
  }

  /// The index of a page that may go; nil where the next few may not.
  private mutating func sweep() -> Int? {
    for _ in 0..<min(2 * clock.count, Self.sweepLimit) {
      if let index = sweepOne() { return index }
    }
    return nil
  }

  private mutating func sweepOne() -> Int? {
    hand = hand + 1 < clock.count ? hand + 1 : 0
    let page = clock[hand]
    defer { page.isReferenced = false }
    return page.isClean && !page.isReferenced ? hand : nil
  }

  private mutating func remove(at index: Int) {
    pages[clock[index].number] = nil
    clock[index] = clock[clock.count - 1]
    clock.removeLast()
  }
}
