internal import Atomics
internal import BlockStores
internal import Bytes
package import Devices

/// One volume of an open store: reads, writes, zeroes and trims on its bytes.
///
/// Thread safety: all operations may be called from any thread. Readers take no lock: they load the published view. Writers
/// put their data on the device outside every lock, then, under `writers`, append the record to the journal and publish the
/// view, so that both have the same order. Lock order: `writers`, then the journal's. A writer never holds `writers` while
/// it waits for room in the journal, for blocks or for a checkpoint.
///
/// Each block changes whole or not at all; an operation on several blocks may be seen block by block.
package final class DiskVolume<Device: BlockDevice>: Sendable {
  /// The volume's number within the store.
  package let inode: UInt64
  /// Its name.
  package let name: String
  let engine: Engine<Device>
  let current: ManagedAtomic<View>
  let writers: Locked<WriterState>
  let openRun: OpenRun<Device>

  /// What writers share.
  struct WriterState {
    /// Blocks that were mapped since the last checkpoint began, and are no more: free when the next one is durable.
    var superseded: [PhysicalRun] = []
    /// How many blocks those are.
    var supersededCount: UInt64 = 0
    /// How many blocks changed since then, each counted as often as it did.
    var changedCount: UInt64 = 0
    /// How many blocks the tree maps.
    var treeBlockCount: UInt64 = 0

    /// How many blocks the next checkpoint frees, at most. What the tree has is not looked up for that.
    var deadBlockCountMax: UInt64 { supersededCount + min(changedCount, treeBlockCount) }

    /// What the next checkpoint's time begins with.
    mutating func startAgain() { self = WriterState(treeBlockCount: treeBlockCount) }
  }

  init(inode: UInt64, _ record: InodeRecord, engine: Engine<Device>, view: View) {
    self.inode = inode
    name = record.name
    self.engine = engine
    current = ManagedAtomic(view)
    writers = Locked(WriterState(treeBlockCount: record.mappedBlocks))
    let commits = engine.commits
    openRun = OpenRun(engine.space) { commits.syncCount }
  }

  var blockSize: BlockSize { engine.blockSize }

  /// The volume's size in bytes.
  package var byteCount: UInt64 { current.load(ordering: .acquiring).byteCount }

  /// The unit of reading and writing that costs least, in bytes: a block.
  package var preferredByteCount: Int { blockSize.byteCount }

  /// Makes everything durable that completed before this call, on this volume and all others: one sync of the device.
  @_specialize(where Device == FileDevice)
  package func flush() throws(ExtentFSError) { try engine.commit() }

  /// Publishes `view`. Under `writers` only.
  func publish(_ view: View) {
    // Pairs with the acquiring loads of readers.
    current.store(view, ordering: .releasing)
  }
}
