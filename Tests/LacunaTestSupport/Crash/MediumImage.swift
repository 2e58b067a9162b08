import Bytes
import Glibc

/// What a medium holds at one moment: immutable, and cheap to keep, because images share the pages they have in common.
package struct MediumImage: Sendable {
  /// The length in bytes.
  package let byteCount: UInt64
  /// nil, or no entry at all, for a page of zeroes.
  let pages: [MediumPage?]

  /// `byteCount` zeroes.
  package init(byteCount: UInt64) { self.init(byteCount: byteCount, pages: []) }

  init(byteCount: UInt64, pages: [MediumPage?]) {
    self.byteCount = byteCount
    self.pages = pages
  }

  /// The bytes of `range`, which must lie inside the image.
  package func bytes(_ range: Range<UInt64>) -> [UInt8] {
    precondition(range.upperBound <= byteCount, "the range is not inside the image")
    return [UInt8](unsafeUninitializedCapacity: Int(range.length)) { buffer, count in
      MediumPage.read(pages, into: UnsafeMutableRawBufferPointer(buffer), at: range.lowerBound)
      count = Int(range.length)
    }
  }

  /// The image, cut off or with zeroes behind it. `byteCount` is a multiple of 4096.
  package func resized(to byteCount: UInt64) -> MediumImage {
    precondition(byteCount % UInt64(MediumPage.byteCount) == 0, "images are cut between pages")
    return MediumImage(
      byteCount: byteCount, pages: Array(pages.prefix(Int(clamping: byteCount / UInt64(MediumPage.byteCount)))))
  }

  /// Whether both hold the same bytes.
  package func holdsTheSame(as other: MediumImage) -> Bool {
    guard byteCount == other.byteCount else { return false }
    for index in 0..<max(pages.count, other.pages.count) {
      let left = index < pages.count ? pages[index] : nil
      let right = index < other.pages.count ? other.pages[index] : nil
      guard left !== right else { continue }
      let same = (left ?? .zeroes).bytes
      if memcmp(same, (right ?? .zeroes).bytes, MediumPage.byteCount) != 0 { return false }
    }
    return true
  }
}

/// A piece of a medium. Only the editor that made it writes to it, until it hands out an image.
final class MediumPage: @unchecked Sendable {
  // Sendable because the bytes change only while one `MediumEditor`, whose number is `owner`, knows the page.
  static let byteCount = 4096
  static let zeroes = MediumPage(owner: 0, copying: nil)

  let bytes: UnsafeMutableRawPointer
  let owner: UInt64

  init(owner: UInt64, copying other: MediumPage?) {
    self.owner = owner
    bytes = .allocate(byteCount: Self.byteCount, alignment: 64)
    if let other { memcpy(bytes, other.bytes, Self.byteCount) } else { memset(bytes, 0, Self.byteCount) }
  }

  deinit { bytes.deallocate() }

  /// Copies what `pages` hold from `offset` on.
  static func read(_ pages: [MediumPage?], into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) {
    guard let base = buffer.baseAddress else { return }
    var done = 0
    while done < buffer.count {
      let (index, inside) = (Int(offset) + done).quotientAndRemainder(dividingBy: byteCount)
      let count = min(byteCount - inside, buffer.count - done)
      if index < pages.count, let page = pages[index] {
        memcpy(base + done, page.bytes + inside, count)
      } else {
        memset(base + done, 0, count)
      }
      done += count
    }
  }
}

/// A medium that changes. Its pages are shared with the images it came from and those it gave, and copied when written.
///
/// For one thread at a time. All ranges must lie inside the medium, where nothing else is said.
final class MediumEditor {
  private(set) var byteCount: UInt64
  private var pages: [MediumPage?]
  /// Pages of this number are this editor's alone.
  private var owner = MediumEditor.nextOwner()

  init(_ image: MediumImage) {
    byteCount = image.byteCount
    pages = image.pages
  }

  /// What the medium holds now.
  func image() -> MediumImage {
    owner = Self.nextOwner()
    return MediumImage(byteCount: byteCount, pages: pages)
  }

  func read(into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) {
    MediumPage.read(pages, into: buffer, at: offset)
  }

  /// Writes as much of `buffer` as lies inside the medium.
  func write(_ buffer: UnsafeRawBufferPointer, at offset: UInt64) {
    guard let source = buffer.baseAddress else { return }
    forEachPart(of: offset..<offset + UInt64(buffer.count)) { index, inside, count, done in
      memcpy(ownPage(index).bytes + inside, source + done, count)
    }
  }

  /// Makes as much of `range` zero as lies inside the medium.
  func zero(_ range: Range<UInt64>) {
    forEachPart(of: range) { index, inside, count, _ in
      guard index < pages.count, pages[index] != nil else { return }
      if count == MediumPage.byteCount {
        pages[index] = nil
      } else {
        memset(ownPage(index).bytes + inside, 0, count)
      }
    }
  }

  /// The parts of `range` that have pages, none touching the next.
  func allocatedRuns(in range: Range<UInt64>) -> [Range<UInt64>] {
    var runs: [Range<UInt64>] = []
    forEachPart(of: range) { index, inside, count, _ in
      guard index < pages.count, pages[index] != nil else { return }
      let start = UInt64(index * MediumPage.byteCount + inside)
      if let last = runs.last, last.upperBound == start {
        runs[runs.count - 1] = last.lowerBound..<start + UInt64(count)
      } else {
        runs.append(start..<start + UInt64(count))
      }
    }
    return runs
  }

  /// Makes the medium at least `byteCount` bytes long, with zeroes.
  func grow(to byteCount: UInt64) { self.byteCount = max(self.byteCount, byteCount) }

  private func forEachPart(
    of range: Range<UInt64>, _ body: (_ page: Int, _ inside: Int, _ count: Int, _ done: Int) -> Void
  ) {
    var position = range.lowerBound
    let end = min(range.upperBound, byteCount)
    while position < end {
      let (index, inside) = Int(position).quotientAndRemainder(dividingBy: MediumPage.byteCount)
      let count = min(MediumPage.byteCount - inside, Int(end - position))
      body(index, inside, count, Int(position - range.lowerBound))
      position += UInt64(count)
    }
  }

  private func ownPage(_ index: Int) -> MediumPage {
    if index >= pages.count { pages.append(contentsOf: repeatElement(nil, count: index + 1 - pages.count)) }
    if let page = pages[index], page.owner == owner { return page }
    let page = MediumPage(owner: owner, copying: pages[index])
    pages[index] = page
    return page
  }

  private static let owners = Locked<UInt64>(0)

  private static func nextOwner() -> UInt64 {
    owners.withLock {
      $0 += 1
      return $0
    }
  }
}
