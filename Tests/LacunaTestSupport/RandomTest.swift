import Glibc

/// Runs the random part of a test with the generator of this run, and names the seed where it fails.
///
/// All random tests of a run begin with the same seed: that of the environment variable `LACUNA_SEED`, else a fresh one.
/// It is also printed once, before the first of them, so that it is known after a trap.
package func withSeededGenerator<Result>(_ body: (inout SeededGenerator) throws -> Result) throws -> Result {
  var generator = SeededGenerator(seed: seedOfThisRun)
  do { return try body(&generator) } catch { throw RandomTestFailure(cause: error) }
}

/// A failure together with what repeats it.
package struct RandomTestFailure: Error, CustomStringConvertible {
  package var cause: any Error
  package var description: String { "\(cause) (to repeat it: LACUNA_SEED=\(seedOfThisRun))" }
}

let seedOfThisRun: UInt64 = {
  let given = getenv("LACUNA_SEED").flatMap { UInt64(String(cString: $0)) }
  let seed = given ?? UInt64.random(in: 0..<1 << 48)
  print("The random tests of this run: LACUNA_SEED=\(seed)")
  // A trap must not take the line with it.
  fflush(nil)
  return seed
}()
