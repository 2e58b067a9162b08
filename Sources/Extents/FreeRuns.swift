internal import Bytes

/// The value of a run of free blocks: nothing but that they are free.
public struct Free: RunValue {
  /// The only value.
  public init() {}

  public func advanced(by count: UInt64) -> Free { self }
}

/// A set of free blocks, ordered, as maximal runs, with how many there are.
public struct FreeRuns: Sendable {
  public private(set) var runs = RunMap<Free>()
  public private(set) var count: UInt64 = 0

  /// The empty set.
  public init() {}

  /// How many runs ``take(_:near:)`` looks at for one that is long enough.
  private static let probeLimit = 16

  /// Whether any block of `run` is in the set.
  public func overlaps(_ blocks: Range<UInt64>) -> Bool {
    runs.firstRun(endingAfter: blocks.lowerBound)?.positions.overlaps(blocks) ?? false
  }

  /// Adds `blocks`, none of which is in the set.
  public mutating func insert(_ blocks: Range<UInt64>) {
    runs.replace(blocks, with: Free())
    count += blocks.length
  }

  /// Takes `blocks` out, all of which are in the set.
  @discardableResult
  public mutating func remove(_ blocks: Range<UInt64>) -> PhysicalRun {
    runs.replace(blocks, with: nil)
    count -= blocks.length
    return PhysicalRun(block: blocks.lowerBound, count: blocks.length)
  }

  /// Takes up to `wanted` blocks from `block` on; nil where `block` is not in the set.
  public mutating func take(_ wanted: UInt64, at block: UInt64) -> PhysicalRun? {
    guard let free = runs.run(at: block) else { return nil }
    return remove(block..<min(free.positions.upperBound, block + min(wanted, free.positions.length)))
  }

  /// Takes `wanted` blocks together, from the first run that has them among the first few.
  public mutating func takeWhole(_ wanted: UInt64) -> PhysicalRun? {
    guard let longest = longestProbed(enough: wanted), longest.length >= wanted else { return nil }
    return remove(longest.lowerBound..<longest.lowerBound + wanted)
  }

  /// Takes up to `wanted` blocks together, as many as the first few runs offer; nil where the set is empty.
  public mutating func takeSome(_ wanted: UInt64) -> PhysicalRun? {
    guard let longest = longestProbed(enough: wanted) else { return nil }
    return remove(longest.lowerBound..<longest.lowerBound + min(wanted, longest.length))
  }

  /// Takes whole runs until they have `wanted` blocks, or the set is empty.
  public mutating func takeRuns(_ wanted: UInt64) -> [PhysicalRun] {
    var taken: [PhysicalRun] = []
    var total: UInt64 = 0
    runs.forEachRun(in: 0..<UInt64.max) { free in
      taken.append(PhysicalRun(block: free.positions.lowerBound, count: free.positions.length))
      total += free.positions.length
      return total < wanted
    }
    for run in taken { remove(run.blocks) }
    return taken
  }

  private func longestProbed(enough wanted: UInt64) -> Range<UInt64>? {
    var longest: Range<UInt64>?
    var probes = 0
    runs.forEachRun(in: 0..<UInt64.max) { free in
      probes += 1
      if free.positions.length > longest?.length ?? 0 { longest = free.positions }
      return free.positions.length < wanted && probes < Self.probeLimit
    }
    return longest
  }
}
