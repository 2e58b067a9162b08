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

/// A failed system call: its name and error number.
package struct SystemError: Error, CustomStringConvertible {
  package var call: String
  package var code: Int32
  package var description: String { "\(call): \(String(cString: strerror(code)))" }
}
