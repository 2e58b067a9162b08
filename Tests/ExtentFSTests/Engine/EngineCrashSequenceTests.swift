import Bytes
import ExtentFS
import Glibc
import LacunaTestSupport
import Testing

/// All short rows of operations, crashed after every device call, with every structured picture of what was pending:
/// nothing of it, all, all but one call, one call alone, each prefix.
@Suite(.slow) struct EngineCrashSequenceTests {
  @Test func `no short row of operations leaves a state that loses or tears anything`() throws {
    // Where LACUNA_CRASH names a state of one of them, that one alone.
    let only = getenv("LACUNA_CRASH").map { String(cString: $0) }
    let sequences = CrashSequence.all(upTo: HuntLength.sequenceLength).filter {
      only == nil || only?.hasPrefix($0.name + "/") == true
    }
    let left = Locked(sequences[...])
    let total = Locked(CrashHuntReport())
    let work: @Sendable () throws -> Void = {
      while let sequence = left.withLock({ $0.popFirst() }) {
        var hunt = CrashHunt()
        hunt.pictures = Pictures(.structured)
        hunt.threadCount = 1
        hunt.liveCuts = 1
        do {
          let report = try hunt.run(sequence.scenario) { log in
            try CrashStore.orderRules.check(log)
            try JournalRules.check(log, journal: CrashStore.journalBytes)
          }
          total.withLock { $0 += report }
        } catch {
          // The others need not go on.
          left.withLock { $0 = [] }
          throw error
        }
      }
    }
    try inThreads(stackByteCount: 8 << 20, [work, work])
    HuntLength.tell("short sequences", total.withLock { $0 }, of: "\(sequences.count) sequences")
  }
}
