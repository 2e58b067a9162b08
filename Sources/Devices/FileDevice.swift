import Atomics
import Bytes
import Glibc
package import SystemPackage

/// A device in a regular file or on a block device.
///
/// While it is open, it holds a lock on the file (fcntl_locking(2), an open file description lock over its whole
/// length): exclusive when open for writing, shared when open for reading only. The lock goes with the process,
/// however that ends. It keeps every other opening through this type away, in this process too, and programs that lock
/// what they open, such as QEMU; it does not keep a program away that never asks. A process that forks shares the lock
/// with its child until both have closed the file or the child has become another program.
///
/// A failed sync is final: the kernel may have dropped what it could not write, and a second sync would report success
/// all the same. It even keeps that in its cache, as if it were written, for whoever opens the file next, so that the cache
/// is emptied at once. From then on `sync`, `write`, `discard` and `grow` fail with the same error number, and reads go on.
///
/// Any number of threads may call it. Reads and writes take no lock. Syncs run one at a time, because the kernel
/// reports a failed writeback to one caller only: two at once could see one fail and the other succeed for the same
/// bytes. `grow` runs one at a time as well.
package final class FileDevice: BlockDevice {
  /// What an opening may do.
  package enum Access: Sendable {
    /// Reading, beside other readers.
    case readOnly
    /// Reading, beside other readers. What is written stays in memory and goes with the device; not a byte of the file changes.
    case scratch
    /// Reading and writing, alone.
    case readWrite
  }

  /// The file's path, as it was given.
  package let path: FilePath
  /// What this opening may do.
  package let access: Access

  /// What was done so far.
  package let counters = DeviceCounters()

  let descriptor: FileDescriptor
  let publication: FilePublication
  /// Whether it is a block device rather than a file.
  package let isBlockDevice: Bool
  /// The sectors of a block device, and what it gives back alone. A file has bytes, and blocks of its file system.
  package let geometry: DeviceGeometry
  private let currentByteCount: ManagedAtomic<UInt64>
  /// What was written, where it may not go into the file.
  let scratch: ScratchPages?
  /// The error number of the sync that failed; 0 before. Stored under `syncing`, loaded without it.
  private let failedSync = ManagedAtomic<Int32>(0)
  /// Held during a sync. The input and output under it is the point: see above.
  private let syncing = Lock(rank: .fileDevice)
  /// Held while the file grows.
  private let growing = Lock(rank: .fileDevice)
  /// Held while the device is closed.
  private let isClosed = Locked(rank: .fileDevice, false)
  /// What was mapped.
  private let mappings = Locked<[Mapping]>(rank: .fileMemory, [])

  private struct Mapping {
    weak var range: MappedRange?
  }

  /// Opens the regular file or block device that `path` names.
  ///
  /// A symbolic link as the last part of the path is refused: resolve it first, as for `/dev/disk/by-id/...`.
  ///
  /// - Throws: `DeviceError` of the operation `lock`, with `EAGAIN` or `EBUSY`, where it is in use. Of the operation
  ///   `open`, with `EISDIR`, `ELOOP` or `ENOTBLK` where it is a directory, a symbolic link or anything else that is
  ///   neither a file nor a block device, with `ESTALE` where the path came to name another file meanwhile, else
  ///   with what the system reported.
  package convenience init(opening path: FilePath, access: Access = .readWrite) throws(DeviceError) {
    self.init(try FileOpening.opening(path, access), path: path, access: access)
  }

  /// Makes a file of `byteCount` bytes, all zero, that only its owner may read and write, and opens it for writing.
  ///
  /// The file and its name are durable when this returns. Its space is allocated, where the file system can.
  ///
  /// - Throws: `DeviceError` with `EEXIST` where `path` names anything already, else what the system reported. Nothing
  ///   is left behind then.
  package convenience init(creating path: FilePath, byteCount: UInt64) throws(DeviceError) {
    try self.init(preparing: path)
    try grow(to: byteCount)
    try publish()
  }

  /// Makes an empty file that only its owner may read and write, on btrfs with the attribute NOCOW, and opens it for writing. Until
  /// `publish` gives it the name `path` it is called `.NAME.xxxxxxxx.new`, in the same directory, and `sync` does nothing: so what is
  /// written first is there whole under its name, or not at all, whatever happens meanwhile.
  ///
  /// The file goes with this object unless it was published; a process that dies leaves it under the name that it had.
  ///
  /// - Throws: `DeviceError` with `EEXIST` where `path` names anything already, else what the system reported. Nothing
  ///   is left behind then.
  package convenience init(preparing path: FilePath) throws(DeviceError) {
    let (opening, temporaryPath) = try FileOpening.creating(path)
    self.init(opening, path: path, access: .readWrite, temporaryPath: temporaryPath)
  }

  private init(_ opening: FileOpening, path: FilePath, access: Access, temporaryPath: FilePath? = nil) {
    if access == .readWrite { FileSizeLimit.isAnError }
    self.path = path
    self.access = access
    publication = FilePublication(temporaryPath: temporaryPath)
    descriptor = opening.descriptor
    isBlockDevice = opening.isBlockDevice
    geometry = opening.geometry
    currentByteCount = ManagedAtomic(opening.byteCount)
    scratch = access == .scratch ? ScratchPages(over: opening.byteCount) : nil
  }

  /// Closes the file and ends its lock, whoever still refers to the device; a file that was not published goes. A call that comes
  /// later fails with `EBADF`, and what is stored in a mapping later reaches no file. It waits for no call that is running: the
  /// caller makes sure that there is none. Does nothing the second time.
  ///
  /// - Throws: `DeviceError` of the operation `close`, with `EMFILE` or `ENFILE`, where the process has no descriptor free; the file
  ///   is then open until the last reference goes.
  package func close() throws(DeviceError) {
    abandon()
    do throws(Errno) {
      try isClosed.withLock { isClosed throws(Errno) in
        guard !isClosed else { return }
        for mapping in mappings.withLock({ $0.compactMap(\.range) }) { try mapping.detach() }
        // First, since a process that was forked meanwhile keeps the opening until it has become its program.
        try SystemCalls.unlock(descriptor)
        try SystemCalls.disconnect(descriptor)
        isClosed = true
      }
    } catch {
      throw failure(.close, error)
    }
  }

  deinit {
    abandon()
    // An error here would tell of writes that no sync covered, and nobody was promised those.
    try? descriptor.close()
  }

  /// The user whom the file belongs to now; nil where that cannot be told.
  package var owner: UInt32? { try? FileStatus(of: descriptor).owner }

  /// Which file it is, whatever its name is: the device that it is on, and its inode there; of a block device, its own number and 0.
  /// Nil where that cannot be told.
  package var fileNumber: (device: UInt64, inode: UInt64)? {
    guard let status = try? FileStatus(of: descriptor) else { return nil }
    return isBlockDevice ? (status.ownDevice, 0) : (status.device, status.inode)
  }

  /// The file's or block device's length in bytes.
  package var byteCount: UInt64 { currentByteCount.load(ordering: .acquiring) }

  /// Fills `buffer` with the bytes that start at `offset`.
  ///
  /// - Throws: `DeviceError` with `EINVAL` outside the device, with `EIO` where the file turns out shorter than it was
  ///   when it was opened, else what the system reported.
  package func read(into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(DeviceError) {
    LockOrder.requireMayWait()
    let byteCount = buffer.count
    try DeviceError.checkRange(.read, offset: offset, byteCount: byteCount, within: self.byteCount)
    do throws(Errno) {
      let held = unsafe publication.read(into: buffer, at: offset)
      // Safe: as much of the buffer is left.
      let rest = unsafe UnsafeMutableRawBufferPointer(rebasing: buffer[held...])
      if let scratch {
        try unsafe scratch.read(into: rest, at: offset + UInt64(held), fill)
      } else {
        try unsafe fill(rest, at: offset + UInt64(held))
      }
      counters.noteRead(byteCount)
    } catch {
      throw failure(.read, error, offset: offset, byteCount: UInt64(byteCount))
    }
  }

  /// Writes all of `buffer` at `offset`.
  ///
  /// - Throws: `DeviceError` with `EINVAL` outside the device, with `EROFS` on one open for reading only, with the
  ///   error number of an earlier failed sync, else what the system reported.
  package func write(_ buffer: UnsafeRawBufferPointer, at offset: UInt64) throws(DeviceError) {
    LockOrder.requireMayWait()
    let byteCount = buffer.count
    try DeviceError.checkRange(.write, offset: offset, byteCount: byteCount, within: self.byteCount)
    do throws(Errno) {
      try requireChangeable()
      let held = unsafe publication.write(buffer, at: offset)
      // Safe: as much of the buffer is left.
      try unsafe put(UnsafeRawBufferPointer(rebasing: buffer[held...]), at: offset + UInt64(held))
      counters.noteWrite(byteCount)
    } catch {
      throw failure(.write, error, offset: offset, byteCount: UInt64(byteCount))
    }
  }

  /// Makes durable everything that completed before this call began. On a device that does not change its file it does nothing, nor
  /// on what is not published yet: a power cut leaves a file without a name, and a block device without its beginning.
  ///
  /// - Throws: `DeviceError`. The first failure is remembered, and this never succeeds again.
  package func sync() throws(DeviceError) {
    LockOrder.requireMayWait()
    guard access == .readWrite, publication.isDone else { return }
    do throws(Errno) {
      try syncing.withLock { () throws(Errno) in
        try requireNoFailedSync()
        do throws(Errno) {
          try SystemCalls.syncData(descriptor)
          counters.noteSync()
        } catch {
          noteFailedSync(error)
          throw error
        }
      }
    } catch {
      throw failure(.sync, error)
    }
  }

  /// Gives the storage of `range` back; the range reads as zeroes from then on.
  ///
  /// A block device takes whole blocks only, so that the partial ones at the edges are written with zeroes. Linux
  /// punches a block device only where the device promises zeroes afterwards; there is no falling back to writing
  /// zeroes, which would cost a write and give nothing back.
  ///
  /// - Throws: `DeviceError` as for `write`, and with `EOPNOTSUPP` where the file system or block device cannot.
  package func discard(_ range: Range<UInt64>) throws(DeviceError) {
    LockOrder.requireMayWait()
    try DeviceError.checkRange(.discard, range, within: byteCount)
    do throws(Errno) {
      try requireChangeable()
      if scratch != nil {
        try writeZeroes(range)
      } else if isBlockDevice {
        try punchWholeBlocks(of: range)
      } else if !range.isEmpty {
        try SystemCalls.punchHole(
          descriptor, offset: Int64(range.lowerBound), byteCount: Int64(range.upperBound - range.lowerBound))
      }
    } catch {
      throw failure(.discard, error, offset: range.lowerBound, byteCount: range.upperBound - range.lowerBound)
    }
  }

  /// Gives the storage of the whole blocks in `range` back, which a block device is asked for by its own means; what they read as
  /// then, nobody knows.
  package func giveBack(_ range: Range<UInt64>) throws(DeviceError) {
    LockOrder.requireMayWait()
    guard isBlockDevice, scratch == nil else { return try discard(range) }
    try DeviceError.checkRange(.discard, range, within: byteCount)
    do throws(Errno) {
      try requireChangeable()
      try giveBackBlocks(of: range)
    } catch {
      throw failure(.discard, error, offset: range.lowerBound, byteCount: range.upperBound - range.lowerBound)
    }
  }

  func giveBackBlocks(of range: Range<UInt64>) throws(Errno) {
    let whole = range.wholeBlocks(of: geometry.sectorByteCount)
    guard !whole.isEmpty else { return }
    try SystemCalls.discardBlocks(descriptor, offset: whole.lowerBound, byteCount: whole.upperBound - whole.lowerBound)
  }

  /// Where the file has storage, as its file system tells (FIEMAP), or else where it has data (SEEK_DATA), so that what was allocated and
  /// never written is not seen: so tmpfs. A block device has no answer, nor what is kept in memory.
  ///
  /// - Throws: `DeviceError` with `EINVAL` outside the device, with `EOPNOTSUPP` where there is no answer, else what the system reported.
  package func allocatedRuns(in range: Range<UInt64>) throws(DeviceError) -> [Range<UInt64>] {
    LockOrder.requireMayWait()
    try DeviceError.checkRange(.findAllocated, range, within: byteCount)
    do throws(Errno) {
      guard !isBlockDevice, scratch == nil else { throw .notSupported }
      return try FileExtents.find(descriptor, in: range)
    } catch {
      throw failure(.findAllocated, error, offset: range.lowerBound, byteCount: range.upperBound - range.lowerBound)
    }
  }

  /// Whether the file system writes what is overwritten to other places, so that each overwrite takes room before it gives some back:
  /// btrfs, unless the file has the attribute NOCOW, which new files get. That needs room on a full file system, and breaks the
  /// file into small pieces.
  package var isCopiedOnWrite: Bool { (try? SystemCalls.copiesOnWrite(descriptor)) ?? false }

  /// Whether it is a file rather than a block device.
  package var canGrow: Bool { !isBlockDevice }

  /// Makes the file at least `byteCount` bytes long and allocates the space, where the file system can.
  ///
  /// - Throws: `DeviceError` with `EOPNOTSUPP` for a block device, with `ENOSPC` or `EFBIG` where there is no room,
  ///   and as for `write`. The length is then what it was.
  package func grow(to byteCount: UInt64) throws(DeviceError) {
    LockOrder.requireMayWait()
    do throws(Errno) {
      try growing.withLock { () throws(Errno) in
        let old = self.byteCount
        try requireChangeable()
        guard byteCount > old else { return }
        guard !isBlockDevice else { throw .notSupported }
        guard let new = Int64(exactly: byteCount) else { throw .fileTooLarge }
        if scratch == nil { try extend(from: Int64(old), to: new) }
        currentByteCount.store(byteCount, ordering: .releasing)
      }
    } catch {
      throw failure(.grow, error, byteCount: byteCount)
    }
  }

  /// Has the kernel begin to read `range` into its memory. It is a wish: what it has no memory for, or cannot read, stays away.
  package func readAhead(_ range: Range<UInt64>) {
    let range = range.clamped(to: 0..<byteCount)
    var next = range.lowerBound
    while next < range.upperBound {
      let end = min(next + Self.readAheadByteCount, range.upperBound)
      try? SystemCalls.advise(
        descriptor, offset: Int64(next), byteCount: Int64(end - next), POSIX_FADV_WILLNEED)
      next = end
    }
  }

  /// Linux reads no more for one such call than its window, which is as long as this unless somebody has made it shorter
  /// (/sys/block/.../read_ahead_kb), and says nothing of the rest.
  private static var readAheadByteCount: UInt64 { 128 << 10 }

  /// Drops what the kernel has of `range` in memory. It is a wish: what is being used or written stays.
  package func forgetCached(_ range: Range<UInt64>) {
    try? SystemCalls.advise(
      descriptor, offset: Int64(range.lowerBound), byteCount: Int64(range.upperBound - range.lowerBound),
      POSIX_FADV_DONTNEED)
  }

  /// One that goes through a mapping of a regular file, where the kernel can and the file system is known to be fit for it.
  package func journalMedium(_ range: Range<UInt64>) -> any JournalMedium {
    guard let mapping = map(range) else { return WrittenJournal(self, at: range.lowerBound) }
    return MappedJournal(mapping, self, at: range.lowerBound)
  }

  /// Maps `range` of a regular file; nil for a block device, and where the kernel cannot or the file system is not known to be fit for it.
  package func map(_ range: Range<UInt64>) -> MappedRange? {
    guard access == .readWrite, !isBlockDevice, range.upperBound <= byteCount else { return nil }
    guard let mapped = try? MappedRange(descriptor, range) else { return nil }
    mappings.withLock { $0.append(Mapping(range: mapped)) }
    return mapped
  }
}

extension FileDevice {
  /// Records that a sync failed, and makes reads see what the disk holds. Package, so that a test can do what no test can
  /// ask a file system for.
  package func noteFailedSync(_ error: Errno) {
    // Pairs with the load in `requireNoFailedSync`; the first failure is the one that stays.
    _ = failedSync.compareExchange(expected: 0, desired: error.rawValue, ordering: .acquiringAndReleasing)
    SystemCalls.forgetUnwritten(descriptor)
  }

  @inline(__always)
  private func requireNoFailedSync() throws(Errno) {
    let error = failedSync.load(ordering: .acquiring)
    if error != 0 { throw Errno(rawValue: error) }
  }

  @inline(__always)
  func requireChangeable() throws(Errno) {
    guard access != .readOnly else { throw .readOnlyFileSystem }
    try requireNoFailedSync()
  }

  private func extend(from old: Int64, to new: Int64) throws(Errno) {
    do throws(Errno) {
      try SystemCalls.allocate(descriptor, offset: old, byteCount: new - old)
    } catch .notSupported {
      try SystemCalls.setByteCount(descriptor, to: new)
    } catch {
      // Space that was allocated before it ran out goes back.
      try? SystemCalls.setByteCount(descriptor, to: old)
      throw error
    }
  }

  /// Discards the whole blocks of `range`, then writes zeroes to what is left at its edges.
  ///
  /// The blocks come first, so that a device that cannot discard keeps its bytes.
  private func punchWholeBlocks(of range: Range<UInt64>) throws(Errno) {
    let whole = range.wholeBlocks(of: geometry.sectorByteCount)
    if !whole.isEmpty {
      try SystemCalls.punchHole(
        descriptor, offset: Int64(whole.lowerBound), byteCount: Int64(whole.upperBound - whole.lowerBound))
    }
    try writeZeroes(range.lowerBound..<whole.lowerBound)
    try writeZeroes(whole.upperBound..<range.upperBound)
  }

  func writeZeroes(_ range: Range<UInt64>) throws(Errno) {
    let zeroes = [UInt8](repeating: 0, count: Int(min(range.upperBound - range.lowerBound, 1 << 20)))
    var offset = range.lowerBound
    while offset < range.upperBound {
      let count = Int(min(range.upperBound - offset, UInt64(zeroes.count)))
      // Safe: the pointer is used inside the closure only.
      let result = unsafe zeroes.withUnsafeBytes { buffer in
        Result { () throws(Errno) in
          try unsafe put(UnsafeRawBufferPointer(rebasing: buffer[..<count]), at: offset)
        }
      }
      try result.get()
      offset += UInt64(count)
    }
  }

  @inline(__always)
  private func fill(_ buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(Errno) {
    // Safe: the buffer is the caller's for the length of the call. The offset is inside the file, whose length is an `Int64`.
    try unsafe Transfer.fill(buffer, at: Int64(offset)) { rest, offset throws(Errno) in
      try unsafe SystemCalls.read(descriptor, into: rest, at: offset)
    }
  }

  @inline(__always)
  private func put(_ buffer: UnsafeRawBufferPointer, at offset: UInt64) throws(Errno) {
    if let scratch { return try unsafe scratch.write(buffer, at: offset, fill) }
    // Safe: as in `fill`.
    try unsafe Transfer.drain(buffer, at: Int64(offset)) { rest, offset throws(Errno) in
      try unsafe SystemCalls.write(descriptor, rest, at: offset)
    }
  }

  func failure(
    _ operation: DeviceError.Operation, _ error: Errno, offset: UInt64 = 0, byteCount: UInt64 = 0
  ) -> DeviceError {
    DeviceError(operation: operation, errno: error.rawValue, offset: offset, byteCount: byteCount, path: path)
  }
}
