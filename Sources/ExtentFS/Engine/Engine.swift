internal import Atomics
package import Bytes
internal import Devices
internal import Extents

/// An open store on a device: what clients may ask of it. It has no state of its own but its parts, each of which guards its own.
///
/// Invariants:
/// 1. No block that the durable superblock's trees or the live journal lead to is overwritten.
/// 2. What a volume's view maps is in its tree, or in a record of the live journal; views and records change in one order.
/// 3. A block that is set free is used again only when the checkpoint that freed it is durable and no view maps it.
/// 4. After a failed sync or a failed checkpoint nothing more is written, until the store is opened again. A checkpoint that finds no
///    room is none (`CheckpointRunner.takeBack`), nor is a record of the journal.
///
/// Volumes refer to their engine, and the engine to what is open of them (``OpenVolume``), which refers to neither.
///
/// Thread safety: any thread.
package final class Engine: Sendable {
  package let options: EngineOptions
  let device: any BlockDevice
  let geometry: StoreGeometry
  let nodes: NodeCache
  let space: SpaceMap
  let checksums: ChecksumTable
  let blocks: DataBlocks
  package let health: EngineHealth
  package let damage: DamageRegister
  let log: EngineLog
  let journal: JournalRing
  let commits: GroupCommit
  let superblocks: SuperblockState
  let volumes: VolumeTable
  let ephemerals: EphemeralClones
  let deletions: DeletionQueue
  let reserve: MetadataReserve
  let checkpoints: CheckpointRunner
  let allocator: DataAllocator
  let hostSpace: HostSpace
  let checkpointer = Checkpointer()
  /// Whether changes reach the trees: not where the store was opened without writing anything at all.
  let mergesJournal: Bool

  package var blockSize: BlockSize { geometry.blockSize }

  /// The length of the journal in bytes.
  package var journalByteCount: UInt64 { geometry.journalByteCount }

  init(_ parts: EngineParts, options: EngineOptions) {
    self.options = options
    let checkpoints = CheckpointRunner(parts, options: options)
    self.checkpoints = checkpoints
    (device, geometry, nodes) = (parts.device, checkpoints.geometry, parts.nodes)
    (space, checksums, blocks) = (parts.space, parts.checksums, checkpoints.blocks)
    (health, damage, log) = (parts.health, parts.damage, parts.log)
    (journal, commits) = (parts.journal, checkpoints.commits)
    (superblocks, volumes, ephemerals) = (checkpoints.superblocks, checkpoints.volumes, checkpoints.ephemerals)
    (deletions, reserve) = (checkpoints.deletions, checkpoints.reserve)
    mergesJournal = parts.mergesJournal
    allocator = DataAllocator(checkpoints)
    hostSpace = HostSpace(checkpoints, checkpointer)
  }
}
