internal import Bytes
internal import Checksums
internal import Devices
internal import Glibc

/// Records of a journal whose data may not have reached the device, in their order, and the look whether it did.
///
/// The data of many records is read together: a device is asked once for up to `byteCountMax` bytes, not once for each block.
/// One thread uses it.
@safe final class DataVerifier {
  /// How much data is read at once.
  static var byteCountMax: Int { 4 << 20 }
  /// How many records wait at most.
  private static var recordCountMax: Int { 4096 }

  private let device: any BlockDevice
  private let blockSize: BlockSize
  private var records: [JournalRecord] = []
  /// How much data the records have.
  private var byteCount = 0

  private let buffer: UnsafeMutableRawBufferPointer
  /// What of the buffer is in use.
  private var usedByteCount = 0
  private var pieces: [Piece] = []

  /// Blocks that are to be read together, all of one record.
  private struct Piece {
    var record: Int
    /// Which of the record's blocks.
    var blocks: Range<Int>
    /// The first of them on the device.
    var block: UInt64
    /// Where in the buffer they go.
    var start: Int
  }

  init(_ device: any BlockDevice, _ blockSize: BlockSize) {
    self.device = device
    self.blockSize = blockSize
    unsafe buffer = .allocate(byteCount: max(Self.byteCountMax, blockSize.byteCount), alignment: 4096)
  }

  deinit { unsafe buffer.deallocate() }

  /// Adds a record that comes after those that are there.
  func add(_ record: JournalRecord) {
    records.append(record)
    if case .map(_, _, _, let sums) = record.change { byteCount += sums.count << Int(blockSize.shift) }
  }

  /// Whether there is enough to be read.
  var isFull: Bool { byteCount >= Self.byteCountMax || records.count >= Self.recordCountMax }

  /// Says of each record whether its data is on the device, and forgets them.
  ///
  /// Blocks past the device's end hold nothing: a device that grew without a sync may be short again after a power cut. Those
  /// that cannot be read count as there: what reads them later gets the error.
  ///
  /// - Throws: `.device` where the device fails altogether.
  func verify() throws(ExtentFSError) -> [(record: JournalRecord, isThere: Bool)] {
    defer {
      records = []
      byteCount = 0
    }
    var isThere = [Bool](repeating: true, count: records.count)
    for (index, record) in records.enumerated() {
      guard case .map(_, _, let physical, let sums) = record.change else { continue }
      let end = physical.addingReportingOverflow(UInt64(sums.count))
      guard !end.overflow, end.partialValue <= device.byteCount >> blockSize.shift else {
        isThere[index] = false
        continue
      }
      var done = 0
      while done < sums.count {
        let room = unsafe (buffer.count - usedByteCount) >> Int(blockSize.shift)
        guard room > 0 else {
          try compare(&isThere)
          continue
        }
        let blocks = done..<min(done + room, sums.count)
        pieces.append(Piece(record: index, blocks: blocks, block: physical + UInt64(done), start: usedByteCount))
        usedByteCount += blocks.count << Int(blockSize.shift)
        done = blocks.upperBound
      }
    }
    try compare(&isThere)
    return Array(zip(records, isThere))
  }

  /// Reads the pieces, and holds them against the checksums of their records.
  private func compare(_ isThere: inout [Bool]) throws(ExtentFSError) {
    defer {
      pieces = []
      usedByteCount = 0
    }
    guard !pieces.isEmpty else { return }
    do throws(DeviceError) {
      try unsafe device.read(pieces.map { unsafe DeviceRead(bytes(of: $0), at: blockSize.offset(of: $0.block)) })
    } catch {
      guard error.errno == EIO else { throw ExtentFSError(error) }
      // One block that cannot be read says nothing of the others.
      for piece in pieces where try !holdsOneByOne(piece) { isThere[piece.record] = false }
      return
    }
    for piece in pieces where !holds(piece, piece.blocks) { isThere[piece.record] = false }
  }

  /// Reads the blocks of a piece one by one, where they cannot be read together, and compares those that can be.
  private func holdsOneByOne(_ piece: Piece) throws(ExtentFSError) -> Bool {
    for index in piece.blocks {
      let first = piece.start + (index - piece.blocks.lowerBound) << Int(blockSize.shift)
      do throws(ExtentFSError) {
        // Safe: the piece lies in the buffer.
        try unsafe device.readPart(
          into: UnsafeMutableRawBufferPointer(rebasing: buffer[first..<first + blockSize.byteCount]),
          at: blockSize.offset(of: piece.block + UInt64(index - piece.blocks.lowerBound)))
      } catch {
        guard error.isUnreadable else { throw error }
        continue
      }
      if !holds(piece, index..<index + 1) { return false }
    }
    return true
  }

  /// Whether what was read of a piece has the checksums that its record says.
  private func holds(_ piece: Piece, _ blocks: Range<Int>) -> Bool {
    guard case .map(_, _, _, let sums) = records[piece.record].change else { return true }
    return blocks.allSatisfy { index in
      let first = piece.start + (index - piece.blocks.lowerBound) << Int(blockSize.shift)
      // Safe: the piece lies in the buffer.
      let bytes = unsafe UnsafeRawBufferPointer(rebasing: buffer[first..<first + blockSize.byteCount])
      return unsafe CRC32C.checksum(bytes) == sums[index]
    }
  }

  /// Where a piece goes.
  private func bytes(of piece: Piece) -> UnsafeMutableRawBufferPointer {
    // Safe: the piece lies in the buffer.
    unsafe UnsafeMutableRawBufferPointer(
      rebasing: buffer[piece.start..<piece.start + piece.blocks.count << Int(blockSize.shift)])
  }
}
