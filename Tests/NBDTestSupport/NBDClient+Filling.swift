extension NBDClient {
  /// Writes bytes of one value, in requests of 1 MiB at most: a server need not take longer ones.
  package func fill(_ range: Range<UInt64>, with value: UInt8) throws {
    for start in stride(from: range.lowerBound, to: range.upperBound, by: 1 << 20) {
      let count = min(range.upperBound - start, 1 << 20)
      try write([UInt8](repeating: value, count: Int(count)), at: start)
    }
  }
}
