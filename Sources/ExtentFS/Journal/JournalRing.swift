internal import Atomics
internal import Bytes
package import Devices

/// The journal: a ring of records on a device, of which the newest part is live.
///
/// What a caller may rely on:
///
/// 1. When `append` returns a number, the record is in the kernel's hands, and so is every record with a lower number.
/// 2. A block of 4096 bytes that held a record when a sync began is not written again while that record is live.
/// 3. Nothing from the tail on is overwritten.
/// 4. After a failed write nothing more is written: what the ring holds behind the last record is not known then. What
///    a `JournalMedium` could not store in a mapping it has tried to write as well, all of the record to the same place.
/// 5. A write that found no room has done nothing, where the ring is seen not to hold the whole record: then that can never be
///    found, and the next one gets its number, and its place or another one.
///
/// Locks: one, for the state and for the buffer that records are built in. It is held during the device's write, so that
/// records reach the kernel in the order of their numbers; that write is a copy into memory which the kernel has. Where
/// the medium is a mapping, it is no more than that; else it also waits for other threads that are writing to the file.
@safe package final class JournalRing: @unchecked Sendable {
  // Sendable because `image` is touched only with the lock held, and the rest is constant, locked or atomic.
  private let device: any BlockDevice
  private let region: Range<UInt64>
  private let identity: JournalIdentity
  private let image: UnsafeMutableRawPointer
  private let medium: any JournalMedium
  /// How many blocks are kept for records that are carried along.
  private let keptBlockCount: UInt64
  private let state: Locked<State>
  private let publishedUsedByteCount: ManagedAtomic<UInt64>
  let health: EngineHealth

  private struct State {
    var space: JournalSpace
    var nextSequence: UInt64
    var durableSequence: UInt64
    /// The number of the last record that changes something: any but a commit marker.
    var changeSequence: UInt64
    /// The number up to which a record says that all is durable.
    var recordedSequence: UInt64
    /// The number of the first record that is live.
    var tailSequence: UInt64
    /// How many bytes were written.
    var writtenByteCount: UInt64 = 0
  }

  /// The most blocks of data that one record maps.
  static var recordBlocksMax: UInt64 { 1024 }

  /// Blocks that only a commit marker may take, besides the one that nothing takes.
  private static var markerBlockCount: UInt64 { 1 }

  /// Makes an empty ring in the bytes `region` of `device`, whose first record comes at `start`.
  ///
  /// A superblock with `identity` and `start` must be durable, and no record with this identity may ever have been written.
  ///
  /// - Parameters:
  ///   - medium: what the region is written through; that of `device`, for nil.
  ///   - keptByteCount: how much of it is kept for records that are carried along.
  ///   - health: whether anything may be written, which a failed write here ends.
  /// - Throws: `.damaged` where region or start are none.
  package init(
    device: any BlockDevice, region: Range<UInt64>, identity: JournalIdentity, start: JournalPosition,
    medium: (any JournalMedium)? = nil, keptByteCount: UInt64 = 0, health: EngineHealth
  ) throws(ExtentFSError) {
    try Self.check(region: region, start: start, on: device)
    keptBlockCount = keptByteCount / JournalFormat.blockByteCount
    self.device = device
    self.region = region
    self.identity = identity
    self.medium = medium ?? device.journalMedium(region)
    self.health = health
    unsafe image = .allocate(byteCount: Self.imageByteCount, alignment: Int(JournalFormat.blockByteCount))
    state = Locked(
      rank: .journalRing,
      State(
        space: JournalSpace(byteCount: region.upperBound - region.lowerBound, start: start.offset),
        nextSequence: start.sequence, durableSequence: start.sequence - 1,
        changeSequence: start.sequence - 1, recordedSequence: start.sequence - 1, tailSequence: start.sequence))
    publishedUsedByteCount = ManagedAtomic(0)
  }

  deinit { unsafe image.deallocate() }

  /// The longest record, and zeroes to the end of its last block.
  private static var imageByteCount: Int { JournalFormat.recordByteCountMax + Int(JournalFormat.blockByteCount) }

  /// The length of the ring in bytes.
  package var byteCount: UInt64 { region.upperBound - region.lowerBound }

  /// How many bytes were written since it was opened, and how many of them were stored in a mapping.
  var writtenByteCounts: (all: UInt64, mapped: UInt64) {
    (state.withLock { $0.writtenByteCount }, medium.mappedByteCount)
  }

  /// How much of the ring is in use, in bytes; of any recent moment. No lock.
  package var usedByteCount: UInt64 { publishedUsedByteCount.load(ordering: .relaxed) }

  /// The number of the last record; the one before the first where there is none.
  package var lastSequence: UInt64 { state.withLock { $0.nextSequence - 1 } }

  /// The number of the last record that a flush has to make durable; a commit marker is none.
  var lastChangeSequence: UInt64 { state.withLock { $0.changeSequence } }

  /// The number of the last record that a completed sync made durable.
  package var durableSequence: UInt64 { state.withLock { $0.durableSequence } }
}

// MARK: Appending

extension JournalRing {
  /// Appends: the blocks from `logical` on are those from `physical` on, whose bytes are in the kernel's hands.
  ///
  /// - Parameters:
  ///   - checksums: the CRC-32C of each block; at most `JournalFormat.mapBlockCountMax`, at least one.
  ///   - isCarried: whether it may take the room that is kept for what is carried along.
  /// - Returns: the record's number; nil where the ring is full, and then a checkpoint makes room.
  /// - Throws: `.device` where the device failed just now, `.failed` ever after; `.readOnly`; but where that was for a lack of room
  ///   (`isLackOfSpace`), nothing has happened, and it may be tried again.
  package func appendMap(
    inode: UInt64, logical: UInt64, physical: UInt64, checksums: UnsafeBufferPointer<UInt32>, isCarried: Bool = false
  ) throws(ExtentFSError) -> UInt64? {
    precondition((1...JournalFormat.mapBlockCountMax).contains(checksums.count), "a map record of so many blocks")
    return try append(.map, JournalFormat.mapByteCount(blockCount: checksums.count), isCarried: isCarried) { builder in
      // Safe: the caller's buffer lives as long as the call.
      unsafe builder.putMap(inode: inode, logical: logical, physical: physical, checksums: checksums)
    }
  }

  /// Appends: `logical` became a hole. Results and errors as for `appendMap`.
  package func appendUnmap(
    inode: UInt64, logical: Range<UInt64>, isCarried: Bool = false
  ) throws(ExtentFSError) -> UInt64? {
    try appendRange(.unmap, inode, logical, isCarried)
  }

  /// Appends: `logical` became reserved zeroes. Results and errors as for `appendMap`.
  package func appendReserve(
    inode: UInt64, logical: Range<UInt64>, isCarried: Bool = false
  ) throws(ExtentFSError) -> UInt64? {
    try appendRange(.reserve, inode, logical, isCarried)
  }

  /// Whether a sync has made live records durable, and no record says so yet: recovery would take their data for data that
  /// was never promised if it were damaged. A commit marker says so.
  package var hasUnrecordedCommit: Bool {
    state.withLock { state in
      let durable = min(state.durableSequence, state.changeSequence)
      return durable > state.recordedSequence && durable >= state.tailSequence
    }
  }

  /// Appends a record that says no more than what is durable. It has a little room that no other record may take.
  package func appendCommitMarker() throws(ExtentFSError) -> UInt64? {
    try append(.commitMarker, JournalFormat.headerByteCount, isCarried: false) { _ in }
  }

  private func appendRange(
    _ kind: JournalFormat.Kind, _ inode: UInt64, _ logical: Range<UInt64>, _ isCarried: Bool
  ) throws(ExtentFSError) -> UInt64? {
    precondition(!logical.isEmpty, "a record of no blocks")
    return try append(kind, JournalFormat.rangeByteCount, isCarried: isCarried) {
      $0.putRange(inode: inode, logical: logical)
    }
  }

  @inline(__always)
  private func append(
    _ kind: JournalFormat.Kind, _ recordByteCount: Int, isCarried: Bool, _ putBody: (JournalRecordBuilder) -> Void
  ) throws(ExtentFSError) -> UInt64? {
    try state.withLock { state throws(ExtentFSError) in
      try health.requireWritable()
      let kept = kind == .commitMarker ? 0 : Self.markerBlockCount + (isCarried ? 0 : keptBlockCount)
      guard let place = state.space.place(recordByteCount, leaving: 1 + kept) else { return nil }
      let sequence = state.nextSequence
      // Safe: the record and its zeroes fit the image, which is this thread's while the lock is held.
      let builder = unsafe JournalRecordBuilder(
        UnsafeMutableRawBufferPointer(start: image, count: recordByteCount))
      putBody(builder)
      builder.seal(kind, identity, sequence: sequence, durableSequence: state.durableSequence)
      try write(recordByteCount, to: place, &state)
      state.space.didWrite(recordByteCount, to: place)
      state.nextSequence = sequence + 1
      if kind != .commitMarker { state.changeSequence = sequence }
      state.recordedSequence = state.durableSequence
      publishedUsedByteCount.store(state.space.usedByteCount, ordering: .relaxed)
      return sequence
    }
  }

  /// Hands the image to the kernel.
  @inline(__always)
  private func write(
    _ recordByteCount: Int, to place: JournalSpace.Place, _ state: inout State
  ) throws(ExtentFSError) {
    // Safe: both counts are inside the image.
    unsafe (image + recordByteCount).initializeMemory(
      as: UInt8.self, repeating: 0, count: place.writtenByteCount - recordByteCount)
    let bytes = unsafe UnsafeRawBufferPointer(start: image, count: place.writtenByteCount)
    state.writtenByteCount &+= UInt64(bytes.count)
    do throws(DeviceError) {
      try LockOrder.allowingInputAndOutput { () throws(DeviceError) in try unsafe medium.store(bytes, at: place.offset)
      }
    } catch {
      // Safe: as above.
      let isNothing =
        unsafe error.isLackOfSpace
        && isMissing(UnsafeRawBufferPointer(start: image, count: recordByteCount), at: place.offset)
      if !isNothing { health.fail(.journal, ExtentFSError(error)) }
      throw ExtentFSError(error)
    }
  }

  /// Whether the ring certainly does not hold all of `record` at `offset`, after an attempt to write it there. What the kernel does not
  /// show, no disk has: so it will not be found there after a power cut either.
  private func isMissing(_ record: UnsafeRawBufferPointer, at offset: UInt64) -> Bool {
    let found = UnsafeMutableRawBufferPointer.allocate(byteCount: record.count, alignment: 8)
    defer { unsafe found.deallocate() }
    do throws(DeviceError) {
      try LockOrder.allowingInputAndOutput { () throws(DeviceError) in
        try unsafe device.read(into: found, at: region.lowerBound + offset)
      }
    } catch {
      return false
    }
    // Safe: both have as many bytes.
    return unsafe !found.elementsEqual(record)
  }
}

// MARK: Checkpoints and commits

extension JournalRing {
  /// Ends the part of the journal that a checkpoint is to cover: later records come at or after the position returned.
  package func cut() -> JournalPosition {
    state.withLock { state in
      state.space.closeBlock()
      return JournalPosition(offset: state.space.head, sequence: state.nextSequence)
    }
  }

  /// Frees what lies before `position`, which came from `cut` and which a durable superblock names as the tail.
  package func advanceTail(to position: JournalPosition) {
    let isInside = state.withLock { state in
      let isInside = state.space.advanceTail(to: position.offset)
      state.tailSequence = position.sequence
      publishedUsedByteCount.store(state.space.usedByteCount, ordering: .relaxed)
      return isInside
    }
    precondition(isInside, "the tail moves forward to a position that cut() returned")
  }

  /// Begins a sync: later records go into a fresh block. Returns the number of the last record that it will cover.
  func beginSync() throws(ExtentFSError) -> UInt64 {
    try state.withLock { state throws(ExtentFSError) in
      try health.requireWritable()
      state.space.closeBlock()
      return state.nextSequence - 1
    }
  }

  /// Takes note that everything up to the record `sequence` is durable.
  func endSync(through sequence: UInt64) {
    state.withLock { $0.durableSequence = max($0.durableSequence, sequence) }
  }

  /// Refuses a region or a start, read from a superblock, that cannot be.
  static func check(region: Range<UInt64>, start: JournalPosition, on device: any BlockDevice) throws(ExtentFSError) {
    let block = JournalFormat.blockByteCount
    let byteCount = region.upperBound - region.lowerBound
    guard region.upperBound <= device.byteCount, region.lowerBound % block == 0, byteCount % block == 0,
      byteCount >= JournalFormat.regionByteCountMin,
      start.offset < byteCount, start.offset % block == 0,
      (1...JournalFormat.startSequenceMax).contains(start.sequence)
    else {
      throw ExtentFSError(
        .damaged, "a journal in the bytes \(region) cannot start at byte \(start.offset), record \(start.sequence)")
    }
  }
}
