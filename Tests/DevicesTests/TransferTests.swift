import Devices
import SystemPackage
import Testing

@Suite struct TransferTests {
  @Test(arguments: [1, 2, 3, 7, 4096, 10_000])
  func `short transfers go on where the last one ended`(most: Int) throws {
    var steps: [Int] = []
    try transferAll(10_000) { moved throws(Errno) in
      steps.append(moved)
      return min(most, 10_000 - moved)
    }
    #expect(steps == Array(stride(from: 0, to: 10_000, by: most)))
  }

  @Test func `a transfer of no bytes makes no call`() throws {
    try transferAll(0) { _ throws(Errno) in throw .badAddress }
  }

  @Test func `a call that moves nothing is an error and is not repeated`() {
    var callCount = 0
    #expect(throws: Errno.ioError) {
      try transferAll(100) { moved throws(Errno) in
        callCount += 1
        return moved < 50 ? 50 : 0
      }
    }
    #expect(callCount == 2)
  }

  @Test(arguments: [-1, 101, Int.max])
  func `a call that claims to have moved too much is an error`(count: Int) {
    #expect(throws: Errno.ioError) { try transferAll(100) { _ throws(Errno) in count } }
  }

  @Test func `an error after a part was moved is the error of the whole`() {
    #expect(throws: Errno.noSpace) {
      try transferAll(100) { moved throws(Errno) in
        if moved > 0 { throw .noSpace }
        return 10
      }
    }
  }
}
