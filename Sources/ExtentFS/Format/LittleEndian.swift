// The one home of the engine's loads and stores: little-endian, of any alignment, bounds checked.

extension RawSpan {
  /// The little-endian integer at `offset`, which the caller knows to be inside: offsets are constants of the format.
  @inline(__always)
  package func integer<Value: FixedWidthInteger & BitwiseCopyable>(_ type: Value.Type, at offset: Int) -> Value {
    // Safe: the load checks its bounds, and every bit pattern is an integer.
    Value(littleEndian: unsafe unsafeLoadUnaligned(fromByteOffset: offset, as: type))
  }

  /// The integer of 64 bits at `offset`.
  package func uint64(at offset: Int) -> UInt64 { integer(UInt64.self, at: offset) }
  /// The integer of 32 bits at `offset`.
  package func uint32(at offset: Int) -> UInt32 { integer(UInt32.self, at: offset) }
  /// The integer of 16 bits at `offset`.
  package func uint16(at offset: Int) -> UInt16 { integer(UInt16.self, at: offset) }
  /// The byte at `offset`.
  package func uint8(at offset: Int) -> UInt8 { integer(UInt8.self, at: offset) }
}

extension MutableRawSpan {
  /// Stores `value` at `offset`, little-endian.
  @inline(__always)
  package mutating func store<Value: FixedWidthInteger & BitwiseCopyable>(_ value: Value, at offset: Int) {
    storeBytes(of: value.littleEndian, toByteOffset: offset, as: Value.self)
  }

  /// Fills `range` with zeroes.
  package mutating func zero(_ range: Range<Int>) {
    for offset in range { storeBytes(of: 0, toByteOffset: offset, as: UInt8.self) }
  }
}
