internal import Bytes
internal import Extents

/// One change of a volume's mapping, as a writer asks for it.
struct MappingChange {
  var blocks: Range<UInt64>
  /// The bytes that the caller was asked to change. They must lie in the volume as it is when the change is made.
  var range: Range<UInt64>
  var target: BlockLocation
  /// The view that the rest of the one block was taken from; nil where the blocks are changed whole.
  var basis: View?
  var blockSize: BlockSize

  /// Whether what the caller decided by an older view is right by `now`: the block is mapped as in `basis`, or without a basis, the
  /// blocks hold no bytes of the volume that are not in `range`.
  @inline(__always)
  func isCurrent(in now: View) -> Bool {
    if let basis { return now === basis || now.maps(blocks.lowerBound, as: basis) }
    return min(blockSize.offset(of: blocks.upperBound), now.byteCount) <= range.upperBound
  }
}

/// What came of appending a record to the journal.
enum AppendOutcome {
  case appended
  case journalIsFull
  /// It shall not be appended, as the caller has found out.
  case refused
}

/// What came of an attempt to change a mapping.
enum ChangeOutcome {
  case done
  /// Nothing: what the caller decided by is no longer so.
  case hasChanged
  /// Nothing: the journal has no room until a checkpoint has run.
  case journalIsFull
  /// Nothing: the volume would have more than its quota allows.
  case overQuota
  /// Nothing: the charge was counted in an epoch that has ended.
  case chargeIsOld
  /// Nothing, until the checkpoint that runs has ended.
  case isExclusive
  /// Nothing: the caller's `append` refused.
  case refused
}

extension OpenVolume {
  /// - Throws: `.deleted`, `.readOnly`, and `.outOfRange` where the bytes `range` do not lie in the volume.
  @inline(__always)
  func requireChangeable(_ range: Range<UInt64>, in view: View) throws(ExtentFSError) {
    guard view.access == .writable, range.upperBound <= view.byteCount else { throw refusal(range, view) }
  }

  private func refusal(_ range: Range<UInt64>, _ view: View) -> ExtentFSError {
    switch view.access {
    case .readOnly: ExtentFSError(.readOnly, "volume '\(name)' is read-only").naming(volume: name)
    case .writable, .deleted: pastEnd(range, in: view)
    }
  }

  /// Why bytes that do not lie in the volume cannot be had: its end is before them, or it is gone.
  func pastEnd(_ range: Range<UInt64>, in view: View) -> ExtentFSError {
    if view.access == .deleted { return gone }
    return ExtentFSError(
      .outOfRange,
      "volume '\(name)': \(range.length) bytes at offset \(range.lowerBound) pass the end at \(view.byteCount)"
    ).naming(volume: name)
  }

  /// Why it cannot be copied or compared.
  var incomplete: ExtentFSError {
    ExtentFSError(
      .damaged,
      "volume '\(name)' has changes that cannot be merged, since a part of its tree cannot be read: it can be neither copied nor compared"
    ).naming(volume: name)
  }

  var gone: ExtentFSError { ExtentFSError(.deleted, "volume '\(name)' was deleted").naming(volume: name) }
}

extension View {
  /// Whether `block` is certainly mapped as in `other`.
  fileprivate func maps(_ block: UInt64, as other: View) -> Bool {
    switch (changed(block), other.changed(block)) {
    case (nil, nil): base == other.base
    case let (mine?, theirs?): mine == theirs
    default: false
    }
  }

  /// Where the overlays say that `block` is; nil where they say nothing.
  private func changed(_ block: UInt64) -> BlockLocation? {
    let run = active.run(at: block) ?? frozen?.run(at: block)
    return run.map { $0.value.advanced(by: block - $0.positions.lowerBound) }
  }
}
