import Bytes
import Glibc

/// Starts a detached thread. Blocking calls belong on threads of their own: the tasks of a test run share two.
func startThread(_ body: @escaping @Sendable () -> Void) throws {
  final class Box: Sendable {
    let body: @Sendable () -> Void
    init(_ body: @escaping @Sendable () -> Void) { self.body = body }
  }
  let box = Unmanaged.passRetained(Box(body))
  var thread = pthread_t()
  let status = pthread_create(
    &thread, nil,
    { pointer in
      if let pointer { Unmanaged<Box>.fromOpaque(pointer).takeRetainedValue().body() }
      return nil
    }, box.toOpaque())
  guard status == 0 else {
    box.release()
    throw SystemError(call: "pthread_create", code: status)
  }
  pthread_detach(thread)
}

/// Runs `body` for each index in a thread of its own, all at once, and waits for every one of them.
///
/// - Throws: the error of the lowest index that failed. Expectations belong after this call: the testing library does
///   not know these threads.
package func inThreads(_ count: Int, _ body: @escaping @Sendable (_ index: Int) throws -> Void) throws {
  struct Progress: Sendable {
    var running: Int
    var failures: [Int: any Error] = [:]
  }
  let progress = Locked(Progress(running: count))
  for index in 0..<count {
    try startThread {
      var failure: (any Error)?
      do { try body(index) } catch { failure = error }
      progress.withLock { state in
        state.running -= 1
        if let failure { state.failures[index] = failure }
      }
    }
  }
  // Bounded by the servers' lifetime: a server that answers no more is killed, and its clients' calls then fail.
  while progress.withLock({ $0.running }) > 0 { usleep(1_000) }
  if let first = progress.withLock({ $0.failures.min { $0.key < $1.key } }) { throw first.value }
}

/// A failed system call: its name and error number.
package struct SystemError: Error, CustomStringConvertible {
  package var call: String
  package var code: Int32
  package var description: String { "\(call): \(String(cString: strerror(code)))" }
}
