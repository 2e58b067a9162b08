import Glibc
import Lacuna

/// How long a read or a write may be.
///
/// nbdkit (1.32.5) has a buffer for each thread of each connection, sixteen of them, as long as the longest request so far, up to
/// 64 MiB. A client that takes no answers keeps all of them in use, with a few bytes for each. So it is this size that bounds what
/// a client can take: 32 MiB. Longer requests are no faster: a copy of 1 GiB with requests of 1, 2, 4, 8 and 32 MiB took 0.30, 0.35,
/// 0.42, 0.42 and 1.5 s, since a buffer that fits a processor's cache is not written to memory and read again.
///
/// QEMU, libnbd's `nbdcopy` and Linux ask for the size, or send less. The protocol lets a client that did not ask expect 32 MiB, but
/// none is known that sends that by itself; it gets a clean error.
enum RequestSize {
  /// The longest. The protocol recommends 1 MiB at least.
  static let byteCountMax: UInt32 = 2 << 20

  /// - Throws: `.invalidParameter` where `buffer`, of a read or a write, is too long. What it holds is lost then.
  @inline(__always)
  static func check(_ buffer: UnsafeRawBufferPointer) throws(LacunaError) {
    if buffer.count > Int(byteCountMax) { throw unsafe refuse(buffer) }
  }

  @inline(never)
  private static func refuse(_ buffer: UnsafeRawBufferPointer) -> LacunaError {
    unsafe giveBack(buffer)
    return LacunaError(
      .invalidParameter,
      "a request of \(buffer.count) bytes is refused: reads and writes have \(byteCountMax) at most, as clients are told that ask"
    )
  }

  /// Gives the kernel back the memory of a request's buffer, which nbdkit has filled before it calls: with zeroes for a read, with
  /// the client's bytes for a write. The buffer stays; its whole pages read as zeroes from now on.
  ///
  /// Safe: the buffer is this thread's alone until the request is answered, and an error answer has no data, so that nobody looks at
  /// what is in it. The next request that uses it either brings its own bytes or fills it. The buffer of a write is not ours to
  /// change, and a filter that comes to it with one of its own may try again with the same; but a request of that length is refused
  /// again, so that none of it can reach the disk. Pages that are locked, or no anonymous memory, are left alone by the kernel or
  /// read as what they were made from: that harms nobody either.
  private static func giveBack(_ buffer: UnsafeRawBufferPointer) {
    guard let start = buffer.baseAddress else { return }
    let page = Int(sysconf(Int32(_SC_PAGESIZE)))
    let address = Int(bitPattern: start)
    let first = (address + page - 1) / page * page
    let end = (address + buffer.count) / page * page
    guard first < end else { return }
    _ = unsafe madvise(UnsafeMutableRawPointer(mutating: start + (first - address)), end - first, MADV_DONTNEED)
  }
}
