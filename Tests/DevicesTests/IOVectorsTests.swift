import Glibc
import LacunaTestSupport
import SystemPackage
import Testing

@testable import Devices

/// Many buffers in one system call.
@Suite struct IOVectorsTests {
  /// Runs `body` with buffers of the given lengths, filled with a pattern, and the bytes of all of them.
  private func withBuffers(
    _ counts: [Int], _ body: ([UnsafeMutableRawBufferPointer], [UInt8]) throws -> Void
  ) rethrows {
    let buffers = counts.map { UnsafeMutableRawBufferPointer.allocate(byteCount: $0, alignment: 1) }
    defer { for buffer in buffers { buffer.deallocate() } }
    for (index, buffer) in buffers.enumerated() { buffer.copyBytes(from: pattern(buffer.count, seed: index)) }
    try body(buffers, buffers.flatMap { Array($0) })
  }

  /// The first `count` bytes of the vectors.
  private func bytes(_ vectors: UnsafeBufferPointer<iovec>, _ count: Int) -> [UInt8] {
    let all = vectors.flatMap { Array(UnsafeRawBufferPointer(start: $0.iov_base, count: $0.iov_len)) }
    return Array(all.prefix(count))
  }

  @Test(arguments: [1, 2, 3, 7, 100, 4096, 20_000])
  func `buffers that are moved in parts arrive in order`(most: Int) throws {
    try withBuffers([1, 4096, 100, 3, 5000, 1]) { buffers, expected in
      var vectors = IOVectors()
      var next: UInt64 = 500
      for buffer in buffers {
        #expect(vectors.take(buffer, at: next) == true)
        next += UInt64(buffer.count)
      }
      #expect(vectors.offset == 500 && vectors.byteCount == expected.count)
      var moved: [UInt8] = []
      try vectors.transfer { part, offset throws(Errno) in
        #expect(offset == 500 + Int64(moved.count))
        let found = bytes(part, most)
        moved += found
        return found.count
      }
      #expect(moved == expected)
      #expect(vectors.byteCount == 0 && vectors.take(buffers[0], at: 9))
    }
  }

  @Test func `only what touches is taken, and no more than a call takes`() throws {
    withBuffers([Int](repeating: 2, count: IOVectors.countMax + 1) + [0]) { buffers, _ in
      var vectors = IOVectors()
      let empty = buffers[buffers.count - 1]
      #expect(vectors.take(empty, at: 77) && vectors.byteCount == 0)
      #expect(vectors.take(buffers[0], at: 100) == true)
      for offset in [99, 100, 101, 103, UInt64.max] { #expect(vectors.take(buffers[1], at: offset) == false) }
      #expect(vectors.take(empty, at: 5) == true, "no bytes are taken anywhere")
      for index in 1..<IOVectors.countMax { #expect(vectors.take(buffers[index], at: 100 + 2 * UInt64(index)) == true) }
      #expect(vectors.take(buffers[IOVectors.countMax], at: 100 + 2 * UInt64(IOVectors.countMax)) == false)
      #expect(vectors.byteCount == 2 * IOVectors.countMax)
    }
  }

  @Test(arguments: [0, -1, 11, Int.max])
  func `a call that moves nothing, or more than there is, is an error and is not repeated`(count: Int) {
    withBuffers([4, 6]) { buffers, _ in
      var vectors = IOVectors()
      #expect(vectors.take(buffers[0], at: 0) && vectors.take(buffers[1], at: 4))
      var callCount = 0
      #expect(throws: Errno.ioError) {
        try vectors.transfer { _, _ throws(Errno) in
          callCount += 1
          return count
        }
      }
      #expect(callCount == 1)
    }
  }
}
