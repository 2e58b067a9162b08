/// One change that the journal holds: what recovery does again.
package struct JournalRecord: Sendable, Equatable {
  /// What happened.
  package enum Change: Sendable, Equatable {
    /// The blocks from `logical` on are those from `physical` on; one CRC-32C for each.
    case map(inode: UInt64, logical: UInt64, physical: UInt64, checksums: [UInt32])
    /// A range of logical blocks became a hole.
    case unmap(inode: UInt64, logical: Range<UInt64>)
    /// A range of logical blocks became reserved zeroes.
    case reserve(inode: UInt64, logical: Range<UInt64>)
    /// Nothing: the record is there for its durable sequence number.
    case commitMarker
  }

  /// The record's number. Numbers rise by one and are never used again.
  package var sequence: UInt64
  /// When the record was made, a completed sync had made every record up to this one durable, with its data.
  package var durableSequence: UInt64
  /// What happened.
  package var change: Change

  package init(sequence: UInt64, durableSequence: UInt64, change: Change) {
    self.sequence = sequence
    self.durableSequence = durableSequence
    self.change = change
  }
}

/// What tells the records of one life of one store from all others.
package struct JournalIdentity: Sendable, Equatable {
  /// The first eight bytes of the store's UUID, little-endian.
  package var storeTag: UInt64
  /// The store's journal epoch: it rises each time that the store is opened for writing.
  package var epoch: UInt64

  package init(storeTag: UInt64, epoch: UInt64) {
    self.storeTag = storeTag
    self.epoch = epoch
  }
}

/// A place in the ring between two records.
package struct JournalPosition: Sendable, Equatable {
  /// The byte in the ring, counted from its start: a multiple of 4096.
  package var offset: UInt64
  /// The sequence number of the record that comes next.
  package var sequence: UInt64

  package init(offset: UInt64, sequence: UInt64) {
    self.offset = offset
    self.sequence = sequence
  }
}
