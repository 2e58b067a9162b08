import Atomics
import Bytes
import SystemPackage

/// What was written to a device that must not change: pages in memory, in front of what the device holds.
///
/// Any number of threads may call it. As long as nothing was written, reading takes no lock.
final class ScratchPages: Sendable {
  private static var pageByteCount: UInt64 { 4096 }

  /// The length of the device below, in bytes; behind it are zeroes.
  let baseByteCount: UInt64
  /// The pages by their numbers.
  private let pages = ReadWriteLocked<[UInt64: [UInt8]]>(rank: .fileMemory, [:])
  private let isUntouched = ManagedAtomic(true)

  init(over baseByteCount: UInt64) { self.baseByteCount = baseByteCount }

  /// Fills `buffer` with the bytes that start at `offset`. `readBase` fills a buffer from the device below.
  func read(
    into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64,
    _ readBase: (UnsafeMutableRawBufferPointer, UInt64) throws(Errno) -> Void
  ) throws(Errno) {
    let baseCount = Int(clamping: min(UInt64(buffer.count), baseByteCount > offset ? baseByteCount - offset : 0))
    // Safe: both parts lie in the buffer.
    try unsafe readBase(UnsafeMutableRawBufferPointer(rebasing: buffer[..<baseCount]), offset)
    unsafe UnsafeMutableRawBufferPointer(rebasing: buffer[baseCount...]).initializeMemory(as: UInt8.self, repeating: 0)
    // Pairs with the store in `write`.
    guard !isUntouched.load(ordering: .acquiring) else { return }
    pages.withReadLock { pages in
      Self.forEachPart(of: buffer.count, at: offset) { page, inPage, inBuffer in
        guard let bytes = pages[page] else { return }
        // Safe: the part lies in the buffer, and as much of the page is left from its offset on.
        unsafe bytes.withUnsafeBytes { source in
          unsafe UnsafeMutableRawBufferPointer(rebasing: buffer[inBuffer]).copyMemory(
            from: UnsafeRawBufferPointer(rebasing: source[inPage..<inPage + inBuffer.count]))
        }
      }
    }
  }

  /// Keeps `buffer` for the bytes that start at `offset`. `readBase` fills a buffer from the device below, for pages that are
  /// written in part.
  func write(
    _ buffer: UnsafeRawBufferPointer, at offset: UInt64,
    _ readBase: (UnsafeMutableRawBufferPointer, UInt64) throws(Errno) -> Void
  ) throws(Errno) {
    try pages.withWriteLock { pages throws(Errno) in
      try Self.forEachPart(of: buffer.count, at: offset) { page, inPage, inBuffer throws(Errno) in
        let isWhole = inBuffer.count == Int(Self.pageByteCount)
        var bytes: [UInt8]
        if let kept = pages[page] {
          bytes = kept
        } else {
          bytes = try unsafe basePage(page, isWhole: isWhole, readBase)
        }
        // Safe: as in `read`.
        unsafe bytes.withUnsafeMutableBytes { target in
          unsafe UnsafeMutableRawBufferPointer(rebasing: target[inPage..<inPage + inBuffer.count]).copyMemory(
            from: UnsafeRawBufferPointer(rebasing: buffer[inBuffer]))
        }
        pages[page] = bytes
      }
    }
    isUntouched.store(false, ordering: .releasing)
  }

  /// What the device below has of a page; zeroes where all of it is about to be written.
  private func basePage(
    _ page: UInt64, isWhole: Bool, _ readBase: (UnsafeMutableRawBufferPointer, UInt64) throws(Errno) -> Void
  ) throws(Errno) -> [UInt8] {
    var bytes = [UInt8](repeating: 0, count: Int(Self.pageByteCount))
    let start = page * Self.pageByteCount
    guard !isWhole, start < baseByteCount else { return bytes }
    let count = Int(min(Self.pageByteCount, baseByteCount - start))
    // Safe: the pointer is used inside the closure only.
    let result = unsafe bytes.withUnsafeMutableBytes { buffer in
      Result { () throws(Errno) in
        try unsafe readBase(UnsafeMutableRawBufferPointer(rebasing: buffer[..<count]), start)
      }
    }
    try result.get()
    return bytes
  }

  /// Calls `body` for each page that has some of the bytes: with its number, where they begin in it, and where in the buffer.
  private static func forEachPart<Failure: Error>(
    of byteCount: Int, at offset: UInt64, _ body: (UInt64, Int, Range<Int>) throws(Failure) -> Void
  ) throws(Failure) {
    var done = 0
    while done < byteCount {
      let position = offset + UInt64(done)
      let inPage = Int(position % pageByteCount)
      let count = min(byteCount - done, Int(pageByteCount) - inPage)
      try body(position / pageByteCount, inPage, done..<done + count)
      done += count
    }
  }
}
