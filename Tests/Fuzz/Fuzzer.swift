import Glibc

/// What libFuzzer, whose start is the program's, calls with each input. The environment variable `LACUNA_FUZZ_TARGET` says what
/// the bytes are for. `scripts/fuzz` builds and starts it.
///
/// A failure that is found ends the process: libFuzzer then keeps the input.
@_cdecl("LLVMFuzzerTestOneInput")
public func testOneInput(_ start: UnsafePointer<UInt8>?, _ count: Int) -> Int32 {
  let begin = ThreadClock.now()
  do {
    try target([UInt8](UnsafeBufferPointer(start: start, count: count)))
  } catch {
    fatalError("\(error)")
  }
  // By the processor's time: libFuzzer's own bound is by the clock, and a busy machine may stand still for a while.
  let time = ThreadClock.now() - begin
  if time > .seconds(5) { fatalError("an input took \(time)") }
  return 0
}

private let target: @Sendable ([UInt8]) throws -> Void = {
  switch getenv("LACUNA_FUZZ_TARGET").map({ String(cString: $0) }) {
  case "store": { try FuzzTargets.store($0) }
  case "journal": { try FuzzTargets.journal($0) }
  case "operations": { try FuzzTargets.operations($0) }
  case "control": { try FuzzTargets.control($0) }
  case "client": { try FuzzTargets.client($0) }
  default: fatalError("LACUNA_FUZZ_TARGET must be store, journal, operations, control or client")
  }
}()
