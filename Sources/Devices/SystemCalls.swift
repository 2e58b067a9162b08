import CLinux
import Glibc
import SystemPackage

/// The system calls of this module, each wrapped once: repeated when a signal interrupts it, its error number taken
/// at once, and its result typed.
enum SystemCalls {
  /// Opens `path`. See open(2).
  static func open(
    _ path: FilePath, _ mode: FileDescriptor.AccessMode, options: FileDescriptor.OpenOptions,
    permissions: FilePermissions? = nil
  ) throws(Errno) -> FileDescriptor {
    try typed { try FileDescriptor.open(path, mode, options: options, permissions: permissions) }
  }

  /// Reads some of the bytes at `offset` and returns how many; 0 at the end of the file. See pread(2).
  @inline(__always)
  static func read(
    _ descriptor: FileDescriptor, into buffer: UnsafeMutableRawBufferPointer, at offset: Int64
  ) throws(Errno) -> Int {
    // Safe: the caller's buffer is valid for the length of the call, and the kernel stays inside its count.
    try typed { try unsafe descriptor.read(fromAbsoluteOffset: offset, into: buffer) }
  }

  /// Writes some of `buffer` at `offset` and returns how many bytes. See pwrite(2).
  @inline(__always)
  static func write(
    _ descriptor: FileDescriptor, _ buffer: UnsafeRawBufferPointer, at offset: Int64
  ) throws(Errno) -> Int {
    // Safe: as for `read`.
    try typed { try unsafe descriptor.write(toAbsoluteOffset: offset, buffer) }
  }

  /// Reads some of the bytes at `offset` into `buffers`, one after the other, and returns how many; 0 at the end of the file. See
  /// preadv(2).
  static func read(
    _ descriptor: FileDescriptor, into buffers: UnsafeBufferPointer<iovec>, at offset: Int64
  ) throws(Errno) -> Int {
    // Safe: the caller's buffers are valid for the length of the call, and the kernel stays inside their counts.
    try checkCount { unsafe preadv(descriptor.rawValue, buffers.baseAddress, Int32(buffers.count), off_t(offset)) }
  }

  /// Writes some of `buffers`, one after the other, at `offset` and returns how many bytes. See pwritev(2).
  static func write(
    _ descriptor: FileDescriptor, _ buffers: UnsafeBufferPointer<iovec>, at offset: Int64
  ) throws(Errno) -> Int {
    // Safe: as for `read`.
    try checkCount { unsafe pwritev(descriptor.rawValue, buffers.baseAddress, Int32(buffers.count), off_t(offset)) }
  }

  /// Makes a file's data, and what is needed to find it, durable. See fdatasync(2).
  static func syncData(_ descriptor: FileDescriptor) throws(Errno) {
    try check { fdatasync(descriptor.rawValue) }
  }

  /// Makes reads see what the disk holds from now on, as far as the system can: to be called after a sync that failed.
  ///
  /// Linux keeps pages that it could not write, marked as if it had: a process that opens the file later would read them, build
  /// on them, and sync with success what is on no disk. So everything that passes for written leaves the cache
  /// (posix_fadvise(2)). An error is of no account: it is no worse than before.
  static func forgetUnwritten(_ descriptor: FileDescriptor) {
    try? advise(descriptor, offset: 0, byteCount: 0, POSIX_FADV_DONTNEED)
  }

  /// Makes a file's or a directory's contents and attributes durable. See fsync(2).
  static func syncAll(_ descriptor: FileDescriptor) throws(Errno) {
    try check { fsync(descriptor.rawValue) }
  }

  /// Sets a file's length. See ftruncate(2).
  static func setByteCount(_ descriptor: FileDescriptor, to byteCount: Int64) throws(Errno) {
    try check { ftruncate(descriptor.rawValue, off_t(byteCount)) }
  }

  /// Closes what `descriptor` is open on, and keeps its number taken until `close`: a call that comes later fails with `EBADF`, and
  /// reaches no file that is opened meanwhile. See dup3(2), and O_PATH in open(2).
  ///
  /// - Throws: `EMFILE` or `ENFILE` where no descriptor is free; it is then open as it was.
  static func disconnect(_ descriptor: FileDescriptor) throws(Errno) {
    let options = FileDescriptor.OpenOptions(rawValue: lacuna_O_PATH | O_CLOEXEC)
    let nothing = try open("/", .readOnly, options: options)
    defer { try? nothing.close() }
    try check { dup3(nothing.rawValue, descriptor.rawValue, O_CLOEXEC) }
  }

  /// Allocates a range of a file, which becomes longer if the range ends past its end. See fallocate(2).
  static func allocate(_ descriptor: FileDescriptor, offset: Int64, byteCount: Int64) throws(Errno) {
    try check { fallocate(descriptor.rawValue, 0, off_t(offset), off_t(byteCount)) }
  }

  /// Gives the storage of a range back; it reads as zeroes from then on. See fallocate(2).
  static func punchHole(_ descriptor: FileDescriptor, offset: Int64, byteCount: Int64) throws(Errno) {
    let mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE
    try check { fallocate(descriptor.rawValue, mode, off_t(offset), off_t(byteCount)) }
  }

  /// Takes a lock on the whole file for this opening, without waiting. See fcntl_locking(2).
  ///
  /// - Throws: `EAGAIN` or `EACCES` where another opening holds a lock that conflicts.
  static func lock(_ descriptor: FileDescriptor, exclusive: Bool) throws(Errno) {
    try setLock(descriptor, exclusive ? F_WRLCK : F_RDLCK)
  }

  /// Ends the lock of this opening, also where a process that was forked meanwhile has the opening too.
  static func unlock(_ descriptor: FileDescriptor) throws(Errno) { try setLock(descriptor, F_UNLCK) }

  private static func setLock(_ descriptor: FileDescriptor, _ kind: Int32) throws(Errno) {
    var lock = flock()
    lock.l_type = Int16(kind)
    lock.l_whence = Int16(SEEK_SET)
    lock.l_start = 0
    lock.l_len = 0  // To the end, wherever that will be.
    // Safe: `lock` outlives the call, which reads it only.
    try check { unsafe fcntl(descriptor.rawValue, lacuna_F_OFD_SETLK, &lock) }
  }

  /// Makes later calls on an opening that was made with `O_NONBLOCK` wait as usual.
  static func clearNonBlocking(_ descriptor: FileDescriptor) throws(Errno) {
    let flags = try check { fcntl(descriptor.rawValue, F_GETFL) }
    try check { fcntl(descriptor.rawValue, F_SETFL, flags & ~O_NONBLOCK) }
  }

  /// The length of a block device in bytes. See ioctl(2).
  static func blockDeviceByteCount(_ descriptor: FileDescriptor) throws(Errno) -> UInt64 {
    var byteCount: UInt64 = 0
    // Safe: the request fills in exactly the eight bytes of `byteCount`.
    try check { unsafe ioctl(descriptor.rawValue, lacuna_BLKGETSIZE64, &byteCount) }
    return byteCount
  }

  /// The length of a sector of a block device in bytes: what it reads and writes as a whole. See ioctl(2).
  static func sectorByteCount(_ descriptor: FileDescriptor) throws(Errno) -> UInt64 {
    var byteCount: Int32 = 0
    // Safe: the request fills in exactly the four bytes of `byteCount`.
    try check { unsafe ioctl(descriptor.rawValue, lacuna_BLKSSZGET, &byteCount) }
    return UInt64(max(byteCount, 1))
  }

  /// The number in a small file, such as those in /sys; nil where there is none.
  static func number(in path: FilePath) -> UInt64? {
    guard let descriptor = try? open(path, .readOnly, options: [.closeOnExec]) else { return nil }
    defer { try? descriptor.close() }
    var text = [UInt8](repeating: 0, count: 32)
    // Safe: the pointer is used inside the closure only.
    let count = unsafe text.withUnsafeMutableBytes { buffer in try? unsafe read(descriptor, into: buffer, at: 0) }
    guard let count else { return nil }
    return UInt64(String(decoding: text[..<count].prefix { $0 >= 0x30 && $0 <= 0x39 }, as: UTF8.self))
  }

  /// The smallest piece of a block device that it gives back alone, in bytes, as its driver says: that of the whole disk for a part of
  /// one. Nil where it gives nothing back, or does not say. See sysfs-block of Linux.
  static func discardByteCount(ofDevice device: UInt64) -> UInt64? {
    let (major, minor) = (device >> 8 & 0xFFF | device >> 32 & 0xFFFF_F000, device & 0xFF | device >> 12 & 0xFFFF_FF00)
    let folder = "/sys/dev/block/\(major):\(minor)"
    let found =
      number(in: FilePath("\(folder)/queue/discard_granularity"))
      ?? number(in: FilePath("\(folder)/../queue/discard_granularity"))
    return found == 0 ? nil : found
  }

  /// Gives the storage of a range of a block device back; what it reads as then, nobody knows. See ioctl(2).
  static func discardBlocks(_ descriptor: FileDescriptor, offset: UInt64, byteCount: UInt64) throws(Errno) {
    var range = (offset, byteCount)
    // Safe: the request reads exactly these two numbers.
    try check { unsafe ioctl(descriptor.rawValue, lacuna_BLKDISCARD, &range) }
  }

  /// Gives a file another name, which must not be taken. See renameat2(2).
  ///
  /// A file system that cannot rename so gets a second name for the file instead, and loses the first.
  ///
  /// - Throws: `EEXIST` where the name is taken.
  static func rename(_ old: FilePath, to new: FilePath) throws(Errno) {
    do throws(Errno) {
      // Safe: the strings live as long as the closures.
      try check {
        unsafe old.withPlatformString { old in
          unsafe new.withPlatformString { new in
            unsafe renameat2(lacuna_AT_FDCWD, old, lacuna_AT_FDCWD, new, UInt32(RENAME_NOREPLACE))
          }
        }
      }
    } catch {
      guard error == .invalidArgument || error == .noFunction || error == .notSupported else { throw error }
      // Safe: as above.
      try check {
        unsafe old.withPlatformString { old in unsafe new.withPlatformString { new in unsafe link(old, new) } }
      }
      try? unlink(old)
    }
  }

  /// Removes a name. See unlink(2).
  static func unlink(_ path: FilePath) throws(Errno) {
    // Safe: the string lives as long as the closure.
    try check { unsafe path.withPlatformString { unsafe Glibc.unlink($0) } }
  }
}

// MARK: Mappings

extension SystemCalls {
  /// Opens the file of `descriptor` once more, for reading and writing, with a file offset and settings of its own.
  static func openAgain(_ descriptor: FileDescriptor) throws(Errno) -> FileDescriptor {
    try open(FilePath("/proc/self/fd/\(descriptor.rawValue)"), .readWrite, options: [.closeOnExec])
  }

  /// Whether the file's system overwrites written blocks where they are, so that an overwrite needs no space: ext4, XFS and
  /// tmpfs do; XFS not while a block is shared with a copy of the file.
  static func overwritesInPlace(_ descriptor: FileDescriptor) throws(Errno) -> Bool {
    let (ext, xfs, tmpfs) = (0xEF53, 0x5846_5342, 0x0102_1994)
    return [ext, xfs, tmpfs].contains(try fileSystem(of: descriptor))
  }

  /// The number of the kind of file system that a file is on. See statfs(2).
  private static func fileSystem(of descriptor: FileDescriptor) throws(Errno) -> Int {
    var status = CLinux.statfs()
    // Safe: the call fills in `status`, which has the type it expects.
    try check { unsafe fstatfs(descriptor.rawValue, &status) }
    return Int(status.f_type)
  }

  /// Says how a range of a file will be used; a count of 0 reaches to its end. See posix_fadvise(2).
  static func advise(
    _ descriptor: FileDescriptor, offset: Int64, byteCount: Int64, _ advice: Int32
  ) throws(Errno) {
    let status = posix_fadvise(descriptor.rawValue, off_t(offset), off_t(byteCount), advice)
    if status != 0 { throw Errno(rawValue: status) }
  }

  /// Maps a range of a file for reading and writing, shared. See mmap(2).
  static func map(
    _ descriptor: FileDescriptor, offset: Int64, byteCount: Int
  ) throws(Errno) -> UnsafeMutableRawPointer {
    let start = unsafe mmap(nil, byteCount, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor.rawValue, off_t(offset))
    guard let start = unsafe start, unsafe start != MAP_FAILED else { throw Errno(rawValue: Glibc.errno) }
    return unsafe start
  }

  /// Makes an empty file that has no name and lives in memory. `label` is the name that
  /// `/proc/self/fd` and `/proc/self/maps` show for it. See memfd_create(2).
  static func makeMemoryFile(_ label: String) throws(Errno) -> FileDescriptor {
    func make(_ flags: UInt32) throws(Errno) -> FileDescriptor {
      // Safe: the string lives as long as the closure.
      FileDescriptor(rawValue: try check { unsafe label.withCString { unsafe memfd_create($0, flags) } })
    }
    do throws(Errno) {
      // Newer kernels complain in their log, or refuse, where it could be executed.
      return try make(MFD_CLOEXEC | lacuna_MFD_NOEXEC_SEAL)
    } catch .invalidArgument {
      return try make(MFD_CLOEXEC)
    }
  }
}

extension SystemCalls {
  /// Runs a call of the C library that answers -1 for a failure, again for as long as signals interrupt it.
  @discardableResult
  static func check(_ call: () -> Int32) throws(Errno) -> Int32 { Int32(try checkCount { Int(call()) }) }

  /// The same for a call that answers how many bytes it moved.
  static func checkCount(_ call: () -> Int) throws(Errno) -> Int {
    while true {
      let result = call()
      if result != -1 { return result }
      let error = Errno(rawValue: Glibc.errno)
      if error != .interrupted { throw error }
    }
  }

  /// Runs a call of swift-system, which throws nothing but `Errno` and repeats interrupted calls by itself.
  @inline(__always)
  private static func typed<Value>(_ call: () throws -> Value) throws(Errno) -> Value {
    do {
      return try call()
    } catch let error as Errno {
      throw error
    } catch {
      throw .ioError
    }
  }
}

// MARK: btrfs

extension SystemCalls {
  /// Makes btrfs overwrite the blocks of a file where they are, rather than write them elsewhere each time (`chattr +C`). The file is
  /// empty. Does nothing on other file systems. See ioctl_iflags(2).
  static func disableCopyOnWrite(_ descriptor: FileDescriptor) throws(Errno) {
    guard let attributes = try btrfsAttributes(of: descriptor) else { return }
    // A file is compressed only when its blocks are written anew, so that btrfs takes one or the other.
    var wanted = attributes & ~FS_COMPR_FL | FS_NOCOW_FL
    // Safe: the request reads the four bytes of `wanted`.
    try check { unsafe ioctl(descriptor.rawValue, lacuna_FS_IOC_SETFLAGS, &wanted) }
  }

  /// Whether it is on btrfs, which writes the blocks of the file elsewhere each time.
  static func copiesOnWrite(_ descriptor: FileDescriptor) throws(Errno) -> Bool {
    try btrfsAttributes(of: descriptor).map { $0 & FS_NOCOW_FL == 0 } ?? false
  }

  /// The attributes of a file on btrfs; nil for one that is elsewhere.
  private static func btrfsAttributes(of descriptor: FileDescriptor) throws(Errno) -> Int32? {
    guard try fileSystem(of: descriptor) == 0x9123_683E else { return nil }
    var attributes: Int32 = 0
    // Safe: the request fills in the four bytes of `attributes`.
    try check { unsafe ioctl(descriptor.rawValue, lacuna_FS_IOC_GETFLAGS, &attributes) }
    return attributes
  }
}
