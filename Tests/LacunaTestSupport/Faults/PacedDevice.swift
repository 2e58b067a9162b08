import Bytes
package import Devices

/// A call that a `PacedDevice` makes wait.
package final class DeviceStop: Sendable {
  private let hit = Gate()
  private let go = Gate()

  /// Returns when a call waits.
  package func waitUntilHit() { hit.pass() }

  /// Lets the call go on, now or when it comes.
  package func letGo() { go.open() }

  fileprivate func hold() {
    hit.open()
    go.pass()
  }
}

/// A device whose calls can be made to wait, which is what a slow disk does. It drops and changes nothing.
package final class PacedDevice<Base: BlockDevice>: BlockDevice {
  /// Where in the call it waits.
  package enum Moment: Sendable { case before, after }

  private struct Rule {
    var operation: DeviceError.Operation
    var moment: Moment
    var isMeant: @Sendable (Range<UInt64>) -> Bool
    var stop: DeviceStop
  }

  package let base: Base
  private let rules = Locked<[Rule]>([])

  package init(_ base: Base) { self.base = base }

  /// Makes the next call of the kind wait whose range of bytes `isMeant`; that of a sync is empty. A batch is one call, and it is enough
  /// that one of its ranges is meant.
  package func stop(
    _ moment: Moment, next operation: DeviceError.Operation,
    where isMeant: @escaping @Sendable (Range<UInt64>) -> Bool = { _ in true }
  ) -> DeviceStop {
    let stop = DeviceStop()
    rules.withLock { $0.append(Rule(operation: operation, moment: moment, isMeant: isMeant, stop: stop)) }
    return stop
  }

  package var byteCount: UInt64 { base.byteCount }
  package var geometry: DeviceGeometry { base.geometry }
  package var canGrow: Bool { base.canGrow }

  package func read(into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(DeviceError) {
    try paced(.read, span(offset, buffer.count)) { () throws(DeviceError) in
      try base.read(into: buffer, at: offset)
    }
  }

  package func write(_ buffer: UnsafeRawBufferPointer, at offset: UInt64) throws(DeviceError) {
    try paced(.write, span(offset, buffer.count)) { () throws(DeviceError) in
      try base.write(buffer, at: offset)
    }
  }

  package func read(_ batch: [DeviceRead]) throws(DeviceError) {
    let ranges = batch.map { span($0.offset, $0.buffer.count) }
    try paced(.read, ranges) { () throws(DeviceError) in try base.read(batch) }
  }

  package func write(_ batch: [DeviceWrite]) throws(DeviceError) {
    let ranges = batch.map { span($0.offset, $0.buffer.count) }
    try paced(.write, ranges) { () throws(DeviceError) in try base.write(batch) }
  }

  package func sync() throws(DeviceError) {
    try paced(.sync, 0..<0) { () throws(DeviceError) in try base.sync() }
  }

  package func discard(_ range: Range<UInt64>) throws(DeviceError) {
    try paced(.discard, range) { () throws(DeviceError) in try base.discard(range) }
  }

  package func allocatedRuns(in range: Range<UInt64>) throws(DeviceError) -> [Range<UInt64>] {
    try base.allocatedRuns(in: range)
  }

  package func grow(to byteCount: UInt64) throws(DeviceError) {
    try paced(.grow, min(base.byteCount, byteCount)..<byteCount) { () throws(DeviceError) in
      try base.grow(to: byteCount)
    }
  }

  private func paced(
    _ operation: DeviceError.Operation, _ range: Range<UInt64>, _ body: () throws(DeviceError) -> Void
  ) throws(DeviceError) {
    try paced(operation, CollectionOfOne(range), body)
  }

  private func paced(
    _ operation: DeviceError.Operation, _ ranges: some Collection<Range<UInt64>>,
    _ body: () throws(DeviceError) -> Void
  ) throws(DeviceError) {
    take(operation, .before, ranges)?.hold()
    try body()
    take(operation, .after, ranges)?.hold()
  }

  private func take(
    _ operation: DeviceError.Operation, _ moment: Moment, _ ranges: some Collection<Range<UInt64>>
  ) -> DeviceStop? {
    rules.withLock { rules in
      let index = rules.firstIndex { rule in
        rule.operation == operation && rule.moment == moment && ranges.contains(where: rule.isMeant)
      }
      return index.map { rules.remove(at: $0).stop }
    }
  }
}

/// The range of a call, as far as there can be one; what is too long, the device below refuses.
func span(_ offset: UInt64, _ byteCount: Int) -> Range<UInt64> {
  let (end, overflows) = offset.addingReportingOverflow(UInt64(byteCount))
  return offset..<(overflows ? .max : end)
}
