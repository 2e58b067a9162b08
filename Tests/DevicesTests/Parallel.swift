import Dispatch
import Testing

/// Runs `body` on `count` threads at once and waits for all; an error it throws is an issue of the test.
func inParallel(_ count: Int, _ body: @escaping @Sendable (_ thread: Int) throws -> Void) {
  let group = DispatchGroup()
  let test = Test.current
  for thread in 0..<count {
    DispatchQueue(label: "thread \(thread)").async(group: group) {
      do {
        try body(thread)
      } catch {
        Issue.record(error, "thread \(thread) of \(test?.name ?? "a test")")
      }
    }
  }
  group.wait()
}
