import Devices
import LacunaTestSupport
import SystemPackage
import Testing

@Suite struct TransferTests {
  @Test(arguments: [1, 2, 3, 7, 4096, 10_000])
  func `a buffer that is filled in parts holds them in order`(most: Int) throws {
    let bytes = pattern(10_000, seed: 1)
    var buffer = zeroes(10_000)
    try fill(&buffer, at: 500) { part, offset throws(Errno) in
      let start = Int(offset) - 500
      let count = min(most, part.count)
      part.copyBytes(from: bytes[start..<start + count])
      return count
    }
    #expect(buffer == bytes)
  }

  @Test(arguments: [1, 2, 3, 7, 4096, 10_000])
  func `a buffer that is written in parts arrives in order`(most: Int) throws {
    let bytes = pattern(10_000, seed: 2)
    var medium = zeroes(10_500)
    try drain(bytes, at: 500) { part, offset throws(Errno) in
      let count = min(most, part.count)
      medium.replaceSubrange(Int(offset)..<Int(offset) + count, with: part[..<count])
      return count
    }
    #expect(medium == zeroes(500) + bytes)
  }

  @Test func `a transfer of no bytes makes no call`() throws {
    var buffer: [UInt8] = []
    try fill(&buffer, at: 0) { _, _ throws(Errno) in throw .badAddress }
    try drain([], at: 0) { _, _ throws(Errno) in throw .badAddress }
  }

  @Test func `a call that moves nothing is an error and is not repeated`() {
    var callCount = 0
    var buffer = zeroes(100)
    #expect(throws: Errno.ioError) {
      try fill(&buffer, at: 0) { part, _ throws(Errno) in
        callCount += 1
        try require(callCount < 10)
        return part.count > 50 ? 50 : 0
      }
    }
    #expect(callCount == 2)
  }

  @Test(arguments: [-1, 101, Int.max])
  func `a call that claims to have moved too much is an error`(count: Int) {
    #expect(throws: Errno.ioError) { try drain(zeroes(100), at: 0) { _, _ throws(Errno) in count } }
  }

  @Test func `an error after a part was moved is the error of the whole`() {
    #expect(throws: Errno.noSpace) {
      try drain(zeroes(100), at: 0) { part, _ throws(Errno) in
        if part.count < 100 { throw .noSpace }
        return 10
      }
    }
  }

  @Test func `an offset that no file can have is refused`() {
    #expect(throws: Errno.invalidArgument) {
      try drain(zeroes(100), at: .max) { _, _ throws(Errno) in 1 }
    }
  }
}

/// Fails instead of going on for ever.
private func require(_ condition: Bool) throws(Errno) {
  if !condition { throw .invalidArgument }
}

private func fill(
  _ buffer: inout [UInt8], at offset: Int64, call: (UnsafeMutableRawBufferPointer, Int64) throws(Errno) -> Int
) throws(Errno) {
  let result = buffer.withUnsafeMutableBytes { buffer in
    Result { () throws(Errno) in try Transfer.fill(buffer, at: offset, call: call) }
  }
  try result.get()
}

private func drain(
  _ bytes: [UInt8], at offset: Int64, call: (UnsafeRawBufferPointer, Int64) throws(Errno) -> Int
) throws(Errno) {
  let result = bytes.withUnsafeBytes { buffer in
    Result { () throws(Errno) in try Transfer.drain(buffer, at: offset, call: call) }
  }
  try result.get()
}
