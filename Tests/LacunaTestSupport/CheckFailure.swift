/// An expectation that does not hold, in words.
///
/// Code that runs on its own threads, or many thousands of times, throws this; `#expect` needs a test's task, and takes its
/// time.
package struct CheckFailure: Error, CustomStringConvertible {
  package var description: String

  package init(_ description: String) { self.description = description }
}

/// Throws a ``CheckFailure`` unless `condition` holds.
package func check(_ condition: Bool, _ words: @autoclosure () -> String) throws {
  if !condition { throw CheckFailure(words()) }
}
