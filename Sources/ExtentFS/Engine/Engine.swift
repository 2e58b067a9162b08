internal import Atomics
package import Bytes
internal import Devices
internal import Extents
package import Logging

/// How an engine behaves; nothing of it is stored.
package struct EngineOptions: Sendable {
  /// Memory for nodes of trees and for checksums, in bytes.
  package var cacheByteCount: UInt64 = 64 << 20
  /// The length in bytes that the device is not grown beyond while it is open; nil for none but the store's own. Where there are
  /// both, the smaller one holds.
  package var limitByteCount: UInt64?
  /// Whether whole blocks of zeroes that are written become holes.
  package var detectsZeroes = true
  /// The longest time between two checkpoints while there is something to merge, in seconds.
  package var checkpointSeconds: UInt32 = 60
  /// How many nodes one step of a deletion visits: by default 4 MiB of them. More than a tree is high.
  package var deletionStepNodeCount = 1024
  /// Whether to go on from the older superblock where the other one is damaged and may have been newer, also where something of what
  /// the older one leads to is damaged.
  package var acceptsOlderSuperblock = false
  /// Gets what no caller is told: the result of recovery, damage, the first failure, a lack of room, slow checkpoints, and space that
  /// the device does not take back; see ``EngineLog``.
  package var logger = Logger(label: "lacuna.engine", factory: { _ in SwiftLogNoOpLogHandler() })
  /// A checkpoint that takes longer is logged.
  package var slowCheckpointDuration: Duration = .seconds(5)
  /// Whether recovery holds data that no sync covered against its checksums. False is for tests of the tests alone: it
  /// trusts what may never have reached the device.
  package var verifiesRecoveredData = true

  /// The defaults.
  package init() {}
}

/// An open store on a device, for writing.
///
/// Invariants:
/// 1. No block that the durable superblock's trees or the live journal lead to is overwritten.
/// 2. What a volume's view maps is in its tree, or in a record of the live journal; views and records change in one order.
/// 3. A block that is set free is used again only when the checkpoint that freed it is durable and no view maps it.
/// 4. After a failed sync or a failed checkpoint nothing more is written, until the store is opened again. A checkpoint that finds no
///    room is none (`undo`), nor is a record of the journal.
///
/// Thread safety: any thread. Lock order: `checkpoints` (one checkpoint at a time, who alone takes the `writers` of several
/// volumes), a volume's `writers`, `editBudget`, `state`, then those of the parts.
package final class Engine: Sendable {
  package let options: EngineOptions
  let device: any BlockDevice
  let geometry: StoreGeometry
  let nodes: NodeCache
  let space: SpaceMap
  let checksums: ChecksumTable
  let spaceRoot: Locked<TreeRoot>
  package let health: EngineHealth
  let log: EngineLog
  /// Whether the device has refused to take space back since the store was opened.
  let hasRefusedSpace = ManagedAtomic<Bool>(false)
  let journal: JournalRing
  let commits: GroupCommit
  let checkpoints = Lock()
  let checkpointer = Checkpointer()
  let checkpointTimes = Locked(CheckpointTimes())
  /// Why the last checkpoint came to nothing, for a lack of room; nil where it did not, and where nothing was left to merge since.
  let shortage = Locked<ExtentFSError?>(nil)
  /// `deadBlockCountMax` as of the last checkpoint.
  let deadBlockLimit = ManagedAtomic<UInt64>(.max)
  let state: Locked<State>
  package let damage: DamageRegister
  /// What the journal says of inodes whose records cannot be read, by inode.
  let strayChanges: [UInt64: Delta]
  /// Whether changes reach the trees: not where the store was opened without writing anything at all.
  let mergesJournal: Bool
  /// How much of the journal may be taken by what cannot be merged, in bytes.
  let carryByteCountMax: ManagedAtomic<UInt64>
  /// How many blocks are given up, and kept by someone who reads an older view or catalog.
  let heldBlockCount = ManagedAtomic<UInt64>(0)
  /// How many calls of `reclaimAll` are running.
  let reclaimingCount = ManagedAtomic<Int>(0)
  /// How many changes of mappings there were since the store was opened.
  let editCount = ManagedAtomic<UInt64>(0)
  /// The number of the last change that the reserve is enough for.
  let editBudgetEnd = ManagedAtomic<UInt64>(0)
  let editBudget = Locked(EditBudget())
  /// False while an opening merges the journal, whose records may contradict each other.
  let trustsChanges = ManagedAtomic<Bool>(true)

  struct State {
    /// The newest durable superblock; its `nextInode` may be ahead of that.
    var superblock: Superblock
    /// The slot it is in.
    var slot: Int
    /// The open volumes by inode. Those without users close at the end of the next checkpoint.
    var volumes: [UInt64: OpenVolume] = [:]
    /// The throwaways that no checkpoint has written.
    var newThrowaways: [UInt64: InodeRecord] = [:]
    /// Blocks that throwaways mapped which are gone, and no tree reaches: free when the next checkpoint is durable.
    var orphans: [PhysicalRun] = []
    /// The inodes whose trees are to be given up.
    var deletions = Deletions()
    /// The epoch that new views belong to.
    var epoch: Epoch
  }

  /// The most blocks that one record of the journal maps.
  static var recordBlocksMax: UInt64 { 1024 }

  package var blockSize: BlockSize { geometry.blockSize }

  /// The length of the journal in bytes.
  package var journalByteCount: UInt64 { geometry.journalByteCount }

  init(_ parts: EngineParts, options: EngineOptions) {
    self.options = options
    device = parts.device
    geometry = parts.superblock.geometry
    nodes = parts.nodes
    space = parts.space
    checksums = parts.checksums
    spaceRoot = parts.spaceRoot
    health = parts.health
    log = parts.log
    journal = parts.journal
    damage = parts.damage
    strayChanges = parts.strayChanges
    mergesJournal = parts.mergesJournal
    carryByteCountMax = ManagedAtomic(parts.carryByteCountMax)
    commits = GroupCommit(device: parts.device, ring: parts.journal)
    let space = parts.space
    let health = parts.health
    let (held, damage, trust) = (heldBlockCount, damage, trustsChanges)
    let epoch = Epoch { runs in
      held.wrappingDecrement(by: runs.reduce(0) { $0 &+ $1.count }, ordering: .relaxed)
      do throws(ExtentFSError) {
        for run in runs { try space.reuse(run) }
      } catch {
        // Nothing is lost yet, and nothing more is written.
        health.fail(.freeing, error.blamed(onJournal: !trust.load(ordering: .relaxed) || !damage.all.isEmpty))
      }
    }
    state = Locked(State(superblock: parts.superblock, slot: parts.slot, epoch: epoch))
  }
}

/// A volume that is open, and how many use it.
struct OpenVolume {
  var volume: DiskVolume
  var userCount = 0
  /// Whether the running checkpoint makes something else of it, so that nobody may open it until that has ended.
  var isHeld = false
}

/// What recovery hands to a new engine.
struct EngineParts {
  var device: any BlockDevice
  var superblock: Superblock
  var slot: Int
  var nodes: NodeCache
  var space: SpaceMap
  var checksums: ChecksumTable
  /// The durable space tree, where the groups' records are looked up.
  var spaceRoot: Locked<TreeRoot>
  var health: EngineHealth
  var log: EngineLog
  var journal: JournalRing
  var damage: DamageRegister
  var strayChanges: [UInt64: Delta]
  var mergesJournal: Bool
  var carryByteCountMax: UInt64
}
