/// Joins neighbouring runs, so that whoever gets them sees each as long as it can be.
///
/// Runs come in order. Two that touch are one where the first one's value, advanced by its length, equals the second one's; see
/// ``RunValue``. Call ``end(_:)`` after the last one.
public struct RunJoiner<Value: RunValue> {
  private var pending: Run<Value>?

  public init() {}

  /// Takes the next run, and hands the one before to `body` where the two cannot be joined.
  ///
  /// - Returns: false where `body` did, which then gets no more.
  public mutating func append<Failure: Error>(
    _ positions: Range<UInt64>, _ value: Value, _ body: (Range<UInt64>, Value) throws(Failure) -> Bool
  ) throws(Failure) -> Bool {
    guard let last = pending else {
      pending = Run(positions, value)
      return true
    }
    if last.positions.upperBound == positions.lowerBound,
      last.value.advanced(by: positions.lowerBound - last.positions.lowerBound) == value
    {
      pending?.positions = last.positions.lowerBound..<positions.upperBound
      return true
    }
    pending = Run(positions, value)
    guard try body(last.positions, last.value) else {
      pending = nil
      return false
    }
    return true
  }

  /// Hands the last run to `body`, unless that has returned false.
  public mutating func end<Failure: Error>(
    _ body: (Range<UInt64>, Value) throws(Failure) -> Bool
  ) throws(Failure) {
    guard let last = pending.take() else { return }
    _ = try body(last.positions, last.value)
  }
}
