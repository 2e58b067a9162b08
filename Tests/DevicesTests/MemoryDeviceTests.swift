import Devices
import Glibc
import LacunaTestSupport
import Testing

@Suite struct MemoryDeviceTests {
  @Test func `a device of a tebibyte costs no memory until it is written`() throws {
    // A part is measured, as measuring costs time per page.
    let device = try MemoryDevice(byteCount: 1 << 30, maximumByteCount: 1 << 40)
    #expect(try device.residentByteCount() == 0)
    try device.grow(to: 1 << 32)
    #expect(try device.residentByteCount() == 0)
  }

  @Test func `a write takes the pages that it touches and no more`() throws {
    let device = try MemoryDevice(byteCount: 1 << 30)
    let page = UInt64(getpagesize())
    try device.write(bytes: [1], at: 1 << 29)
    #expect(try device.residentByteCount() == page)
    try device.write(bytes: [1, 2], at: (1 << 28) - 1)
    #expect(try device.residentByteCount() == 3 * page)
  }

  @Test func `a discard gives the memory of whole pages back`() throws {
    let device = try MemoryDevice(byteCount: 1 << 24)
    let page = UInt64(getpagesize())
    try device.write(bytes: pattern(1 << 20, seed: 1), at: 0)
    #expect(try device.residentByteCount() == 1 << 20)
    try device.discard(1..<(1 << 20) - 1)
    #expect(try device.residentByteCount() == 2 * page)
    try device.discard(0..<1 << 24)
    #expect(try device.residentByteCount() == 0)
  }

  @Test(.enabled(if: getuid() == 0, "locking all memory needs root"))
  func `memory that is locked reads as zeroes after a discard`() async {
    // In a process of its own, as the lock is on all memory.
    await #expect(processExitsWith: .success) {
      let device = try MemoryDevice(byteCount: 65_536)
      try device.write(bytes: pattern(65_536, seed: 2), at: 0)
      try #require(mlockall(MCL_CURRENT) == 0)
      try device.discard(1..<65_535)
      try #require(device.bytes(at: 1, count: 65_534) == zeroes(65_534))
      try #require(device.residentByteCount() == 65_536, "the pages are still there, as they are locked")
    }
  }

  @Test func `growing past the greatest length finds no space`() throws {
    let device = try MemoryDevice(byteCount: 4096, maximumByteCount: 8192)
    try device.grow(to: 8192)
    expectFailure(.grow, ENOSPC) { try device.grow(to: 8193) }
    expectFailure(.grow, ENOSPC) { try device.grow(to: .max) }
    #expect(device.byteCount == 8192)
  }

  @Test func `a greatest length below the length is refused`() {
    expectFailure(.open, EINVAL) { _ = try MemoryDevice(byteCount: 2, maximumByteCount: 1) }
  }

  @Test(arguments: [UInt64.max, UInt64(Int64.max), 1 << 62])
  func `a device larger than the address space is refused`(byteCount: UInt64) {
    expectFailure(.open, ENOMEM) { _ = try MemoryDevice(byteCount: 0, maximumByteCount: byteCount) }
  }

  @Test func `a device that is gone gives its address space back`() throws {
    // Together more than the address space has.
    for _ in 0..<64 {
      let device = try MemoryDevice(byteCount: 1 << 43)
      try device.write(bytes: [1], at: (1 << 43) - 1)
    }
  }
}

/// The thread sanitizer runs these.
@Suite struct MemoryDeviceConcurrencyTests {
  @Test func `a growth that another one overtakes is not lost`() throws {
    let device = try MemoryDevice(byteCount: 0, maximumByteCount: 1 << 30)
    try inThreads(4) { thread in
      var shortCount = 0
      for _ in 0..<20_000 {
        // Always a little more, so that all threads get in each other's way.
        let target = device.byteCount + 1 + UInt64(thread) * 8
        try device.grow(to: target)
        if device.byteCount < target { shortCount += 1 }
      }
      #expect(shortCount == 0)
    }
    #expect(device.byteCount >= 20_000 * 25 && device.byteCount <= 4 * 20_000 * 25)
  }
}
