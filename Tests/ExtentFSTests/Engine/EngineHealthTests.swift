import Bytes
import Devices
import Glibc
import LacunaTestSupport
import Testing

@testable import ExtentFS

@Suite struct `The health of an engine` {
  private static let first = ExtentFSError(DeviceError(operation: .sync, errno: EIO))
  private static let second = ExtentFSError(.damaged, "a node")

  @Test func `the first failure stays, and is reported once`() throws {
    let reports = Locked<[EngineFailure]>([])
    let health = EngineHealth { failure in reports.withLock { $0.append(failure) } }
    try health.requireWritable()
    health.fail(.sync, Self.first)
    health.fail(.checkpoint, Self.second)
    health.becomeReadOnly()
    #expect(!health.isWritable)
    let error = #expect(throws: ExtentFSError.self) { try health.requireWritable() }
    #expect(error?.code == .failed)
    #expect(error?.facts.hasPrefix("making data durable failed earlier: ") == true, "\(error as Any)")
    let reported = reports.withLock { $0 }
    #expect(reported.count == 1 && reported.first?.step == .sync && reported.first?.cause == Self.first)
  }

  @Test func `what is read-only says so, and has not failed`() throws {
    let health = EngineHealth { _ in Issue.record("nothing has failed") }
    health.becomeReadOnly()
    health.fail(.journal, Self.first)
    let error = #expect(throws: ExtentFSError.self) { try health.requireWritable() }
    #expect(error?.code == .readOnly)
  }

  @Test func `of failures in many threads one is reported`() throws {
    let count = Locked(0)
    let health = EngineHealth { _ in count.withLock { $0 += 1 } }
    try inThreads(8) { number in health.fail(number % 2 == 0 ? .journal : .freeing, Self.second) }
    #expect(count.withLock { $0 } == 1)
    #expect(!health.isWritable)
  }
}
