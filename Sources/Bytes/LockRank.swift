/// The order in which one thread may take locks: a lock may be taken while locks of lower ranks are held, outermost first. Debug
/// builds trap where a thread does otherwise; see ``LockOrder``. `docs/design.md`, section "Locks", has the table.
///
/// A lock without a rank is not watched: those of tests.
package enum LockRank: UInt8, CaseIterable, Comparable, Sendable {
  // MARK: Lacuna

  /// `Store`: one thread closes it.
  case storeClosing
  /// `CallGate`: a closed gate waits for the calls that are inside.
  case callGate
  /// `Throwaways.opening`: one ephemeral clone is looked for and made at a time.
  case throwawayOpening
  /// `DiskStore`: when the catalog was last brought up to date.
  case catalogRefresh
  /// `ControlConnection.sending`: one answer is sent at a time.
  case controlSending
  /// `ControlServer` and its connections: who is connected.
  case controlServer
  /// `ClientPlaces`: who is connected.
  case clientPlaces
  /// `Throwaways.open`, `DiskStore.clients`, `Volume.onClose` and the like: counts and tables that are looked at only.
  case storeTable

  // MARK: The engine

  /// The thread in the background: what it remembers from one look to the next.
  case background
  /// `CheckpointRunner`: one checkpoint at a time.
  case checkpointTurn
  /// `OpenVolume`: the writers of one volume. A checkpoint alone takes those of several.
  case volumeWriters
  /// `MetadataReserve`: the budget.
  case metadataReserve
  /// `VolumeTable`: which volumes are open.
  case volumeTable
  /// `SuperblockState`.
  case superblock
  /// `EphemeralClones`.
  case ephemeralClones
  /// `DeletionQueue`.
  case deletionQueue
  /// `AllocationWindow`: one thread fetches the next run of a volume.
  case allocationWindow
  /// `SpaceMap.slowPath`: groups are read, and the device grows.
  case spaceSlowPath
  /// `ChecksumTable`: one stripe of it.
  case checksumStripe
  /// `SpaceTree`: the durable root.
  case spaceTree
  /// `GroupRecords`.
  case groupRecords
  /// `SpaceMap`: what is free.
  case spaceMap
  /// `NodeCache`: one stripe of it.
  case nodeCache
  /// `GroupCommit`: which sync runs.
  case groupCommit
  /// `JournalRing`: where the next record comes.
  case journalRing

  // MARK: Memory stores

  /// `BlockFile.overwriting`: those who write in place, as readers, and those who copy, as writers.
  case fileOverwriting
  /// `BlockFile`: the writers of one file.
  case fileWriters
  /// The tables of files of the stores in memory.
  case memoryFiles
  /// The shared runs of a store in memory.
  case memoryShared
  /// `MemorySpace`: one thread gives memory back at a time.
  case memoryReturn
  /// `MemorySpace`: what is free.
  case memorySpace

  // MARK: Devices

  /// `FileDevice`: one thread makes the file longer, syncs it, or gives it its name.
  case fileDevice
  /// `ScratchPages`, `HeldBytes`, `MappedRange`: what is kept in memory of a file.
  case fileMemory

  // MARK: Leaves

  /// What is held for a look or a note alone, whatever else is held: health, damage, names, figures.
  case leaf

  package static func < (left: LockRank, right: LockRank) -> Bool { left.rawValue < right.rawValue }

  /// Whether writers take it that need nothing of what is slow: no input or output, no growth of a file, under it.
  var isForWriters: Bool {
    switch self {
    case .volumeWriters, .metadataReserve, .volumeTable, .superblock, .spaceMap, .leaf: true
    default: false
    }
  }
}
