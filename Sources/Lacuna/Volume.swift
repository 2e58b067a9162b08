internal import Bytes

/// A stretch of a volume that is of one kind.
public struct VolumeExtent: Sendable, Hashable {
  /// What lies there.
  public enum Kind: String, Codable, Sendable, Hashable {
    /// Bytes.
    case data
    /// Zeroes that have their space.
    case zero
    /// Nothing: zeroes that take no space.
    case hole
    /// Of a difference of two snapshots: what is the same in both, whatever it is.
    case unchanged
  }

  /// The first byte.
  public var offset: UInt64
  /// The length in bytes.
  public var byteCount: UInt64
  /// What lies there.
  public var kind: Kind

  /// Makes an extent.
  package init(offset: UInt64, byteCount: UInt64, kind: Kind) {
    self.offset = offset
    self.byteCount = byteCount
    self.kind = kind
  }
}

/// An open virtual disk.
///
/// Positions and lengths are in bytes and need no alignment. All operations may be called from any thread, and check their
/// ranges: `.outOfRange` where one ends past the volume's end, `.outOfSpace` for a write there. An operation covers
/// whole or not at all what it changes in one block; two that overlap in time have no order. Another user may have made the
/// volume smaller since it was opened, which is told in the same way, or may have deleted it: `.deleted`. Once the store is closed, every
/// call throws `.closed`.
///
/// Durability: what returned before a ``flush()`` began is durable when that returns, whichever client did it; what was done
/// `durably` is so when it returns. A volume in memory has nothing more durable to offer than that; what a volume on disk has
/// acknowledged, flushed or not, survives the end of the process, however that ends.
public final class Volume: Sendable {
  /// Name, size and the like.
  public let description: VolumeDescription
  private let contents: VolumeContents
  private let counters: OperationCounters?
  private let gate: CallGate
  private let onClose: Locked<(@Sendable () throws(LacunaError) -> Void)?>

  /// - Parameters:
  ///   - gate: what each call on the volume passes.
  ///   - counters: where requests are counted; nil where nobody asks.
  ///   - close: what the end of the volume's use means, done once.
  init(
    _ description: VolumeDescription, _ contents: VolumeContents, gate: CallGate, counters: OperationCounters? = nil,
    close: (@Sendable () throws(LacunaError) -> Void)? = nil
  ) {
    self.description = description
    self.contents = contents
    self.gate = gate
    self.counters = counters
    onClose = Locked(rank: .storeTable, close)
  }

  deinit { try? close() }

  /// Ends the use of the volume by its client; a throwaway goes with its last user. No other call may follow, nor be
  /// running. It happens by itself when nobody has a reference left. Once the store is closed there is nothing left to end.
  public func close() throws(LacunaError) {
    let close = onClose.withLock { onClose in
      defer { onClose = nil }
      return onClose
    }
    if let close { _ = try gate.enterUnlessClosed(close) }
  }

  /// The size in bytes.
  public var byteCount: UInt64 { description.byteCount }

  /// The unit of reading and writing that costs least, in bytes: a power of two.
  public var preferredByteCount: UInt32 { UInt32(contents.preferredByteCount) }

  /// Whether writes to it are refused.
  public var isReadOnly: Bool { description.isReadOnly }

  /// Whether each client that opens the same name gets contents of their own, as of a throwaway that has no label.
  public var isPrivate: Bool { description.isPrivate }

  /// Whether distance between positions costs time.
  public var isRotational: Bool { false }

  /// Fills `buffer` with the bytes from `offset` on.
  public func read(into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(LacunaError) {
    guard let range = Range(offset: offset, byteCount: buffer.count), range.upperBound <= byteCount else {
      throw pastEnd(.outOfRange, offset, UInt64(buffer.count))
    }
    try onContents(.read, UInt64(buffer.count)) { contents throws(LacunaError) in
      try unsafe contents.read(into: buffer, at: offset)
    }
  }

  /// Writes all of `buffer` at `offset`.
  public func write(_ buffer: UnsafeRawBufferPointer, at offset: UInt64, durably: Bool) throws(LacunaError) {
    guard let range = Range(offset: offset, byteCount: buffer.count), range.upperBound <= byteCount else {
      throw pastEnd(.outOfSpace, offset, UInt64(buffer.count))
    }
    try onContents(.write, UInt64(buffer.count)) { contents throws(LacunaError) in
      do throws(LacunaError) { try unsafe contents.write(buffer, at: offset) } catch { throw error.ofWrite }
      if durably { try contents.sync() }
    }
  }

  /// Makes `range` read as zeroes.
  ///
  /// - Parameters:
  ///   - mayTrim: blocks may become holes; else they keep their space, or have it reserved.
  ///   - onlyIfFast: fail with `.notSupported`, with nothing changed, rather than take as long as writing zeroes would.
  public func zero(
    _ range: Range<UInt64>, mayTrim: Bool, onlyIfFast: Bool, durably: Bool
  ) throws(LacunaError) {
    guard range.upperBound <= byteCount else { throw pastEnd(.outOfSpace, range.lowerBound, range.length) }
    if onlyIfFast, !(mayTrim ? contents.zeroesByMapping : contents.reservesZeroes) {
      throw LacunaError(.notSupported, "fast zero is not supported here").inVolume(description.name)
    }
    try onContents(.zero, range.length) { contents throws(LacunaError) in
      do throws(LacunaError) { try contents.zero(in: range, keepsSpace: !mayTrim) } catch { throw error.ofWrite }
      if durably { try contents.sync() }
    }
  }

  /// Gives back the space of what `range` holds. The blocks wholly inside it read as zeroes from then on; its edges may keep
  /// what they hold.
  public func discard(_ range: Range<UInt64>, durably: Bool) throws(LacunaError) {
    guard range.upperBound <= byteCount else { throw pastEnd(.outOfRange, range.lowerBound, range.length) }
    try onContents(.trim, range.length) { contents throws(LacunaError) in
      try contents.discard(in: range)
      if durably { try contents.sync() }
    }
  }

  /// Says that `range` will soon be read: its data is on its way into the kernel's memory when this returns, as far as there is
  /// memory for it, and no more than the first 32 MiB. In memory everything is near already.
  public func prefetch(_ range: Range<UInt64>) throws(LacunaError) {
    guard range.upperBound <= byteCount else { throw pastEnd(.outOfRange, range.lowerBound, range.length) }
    try onContents { contents throws(LacunaError) in try contents.prefetch(in: range) }
  }

  /// Makes everything that completed before this call durable.
  public func flush() throws(LacunaError) {
    guard !isReadOnly else { return }
    try onContents(.flush, 0) { contents throws(LacunaError) in try contents.sync() }
  }

  /// Calls `visit` with maximal extents that cover `range` without gaps, in order and clipped to it, until it returns
  /// false. It takes no lock that a reader or writer would wait for.
  public func forEachExtent(
    in range: Range<UInt64>, _ visit: (VolumeExtent) throws(LacunaError) -> Bool
  ) throws(LacunaError) {
    guard range.upperBound <= byteCount else { throw pastEnd(.outOfRange, range.lowerBound, range.length) }
    guard !range.isEmpty else { return }
    try onContents { contents throws(LacunaError) in
      try contents.forEachExtent(in: range) { bytes, kind throws(LacunaError) in
        try visit(VolumeExtent(offset: bytes.lowerBound, byteCount: bytes.length, kind: kind))
      }
    }
  }

  private func onContents<Result>(
    _ body: (VolumeContents) throws(LacunaError) -> Result
  ) throws(LacunaError) -> Result {
    do throws(LacunaError) {
      return try gate.enter { () throws(LacunaError) in try body(contents) }
    } catch {
      throw error.inVolume(description.name)
    }
  }

  /// The same, counted.
  @inline(__always)
  private func onContents(
    _ operation: VolumeOperation, _ byteCount: UInt64, _ body: (VolumeContents) throws(LacunaError) -> Void
  ) throws(LacunaError) {
    guard let counters else { return try onContents(body) }
    try counters.measure(operation, byteCount: byteCount) { () throws(LacunaError) in try onContents(body) }
  }

  private func pastEnd(_ code: LacunaError.Code, _ offset: UInt64, _ count: UInt64) -> LacunaError {
    LacunaError(code, "\(count) bytes at offset \(offset) pass the end at \(byteCount)").inVolume(description.name)
  }
}

extension LacunaError {
  /// What a write reports in place of this: past the end of a volume that was made smaller there is no room.
  fileprivate var ofWrite: LacunaError {
    var error = self
    if code == .outOfRange { error.code = .outOfSpace }
    return error
  }
}
