internal import Atomics
public import Bytes
internal import Extents

/// A byte-addressed, sparse, copy-on-write file over a store of blocks; see `ExtentFile` and `BlockChainFile`.
///
/// A write puts its bytes into free blocks, then publishes a new mapping, and the blocks that it replaced are freed once no
/// reader can still see them (see `View`). So a read sees each write and each other change whole or not at all, except that
/// it may see the parts of one ``zero(in:keepsSpace:)`` one after another.
///
/// A file that *overwrites in place* does so only where nothing is mapped, or blocks are shared with a clone. What is its own
/// it overwrites where it is, which costs no more than the copy, and keeps long extents long; a read beside such a write may
/// see any mixture of old and new bytes, as on a disk.
///
/// Thread safety: all operations may be called from any thread. Readers take no lock: they load the published view.
/// Writers move bytes outside every lock, and serialise only to change the mapping. `writers` guards nothing but the right
/// to replace `current`; under it only the store's own locks are taken. Writers in place hold `overwriting` as readers do, so
/// that who copies a block, or makes a clone, can wait for them and keep them out. Lock order: `overwriting`, `writers`.
///
/// Invariant: in the last block, the bytes behind the file's end are zeroes.
///
/// Only one `BlockFile` can be open on an inode at a time, from its making to the end of its life.
public final class BlockFile<Backing: FileBacking>: Sendable {
  /// The file's number within the store.
  public let inode: Inode
  let backing: Backing
  let writers = Lock(rank: .fileWriters)
  let current: ManagedAtomic<View<Backing>>
  let reclaimer: Reclaimer<Backing>
  /// Nil where nothing is overwritten in place.
  let overwriting: ReadWriteLock?
  /// Keeps other users from the inode.
  private let opened: OpenInode

  /// Opens the file `inode` of `backing`; an unknown one is empty.
  ///
  /// - Throws: `.inUse` where it is open already, and what the store throws.
  public convenience init(_ backing: Backing, inode: Inode, overwritesInPlace: Bool = false) throws(StoreError) {
    let opened = try backing.open(inode)
    self.init(backing, inode, opened, try backing.map(of: inode), overwritesInPlace)
  }

  /// The file `inode`, which is open and has the mapping `map`.
  private init(_ backing: Backing, _ inode: Inode, _ opened: OpenInode, _ map: Backing.Map, _ overwritesInPlace: Bool) {
    self.inode = inode
    self.backing = backing
    self.opened = opened
    overwriting = overwritesInPlace ? ReadWriteLock(rank: .fileOverwriting) : nil
    reclaimer = Reclaimer(backing)
    current = ManagedAtomic(View(map, reclaimer))
  }

  /// The size of the store's blocks, and the unit of holes.
  public var blockSize: BlockSize { backing.blockSize }

  /// The file's size in bytes.
  public var byteCount: UInt64 { current.load(ordering: .acquiring).map.byteCount }

  /// Makes everything that completed before this call durable, where the store has a durable medium.
  public func sync() throws(StoreError) { try backing.sync() }

  /// Takes the file away with all it held; it is then empty.
  public func remove() throws(StoreError) {
    try change(forgettingFile: true) { map throws(StoreError) in
      let blocks = 0..<blockSize.blocks(toHold: UInt64(Int64.max))
      map.replace(blocks, with: nil)
      map.byteCount = 0
      return blocks
    }
  }

  /// Runs `body` while nobody overwrites blocks in place.
  func withoutOverwriting<Result>(_ body: () throws(StoreError) -> Result) throws(StoreError) -> Result {
    guard let overwriting else { return try body() }
    return try overwriting.withWriteLock(body)
  }

  /// Publishes what `edit` makes of the mapping, and retires the blocks that it took out.
  ///
  /// `edit` runs under the writers' lock. It returns the blocks that it mapped anew or made holes, every one of them, or nil
  /// where there is nothing to publish. When it or the store throws, nothing has changed.
  ///
  /// - Parameter forgettingFile: the store forgets the file instead of keeping the new mapping.
  func change(
    forgettingFile: Bool = false, _ edit: (inout Backing.Map) throws(StoreError) -> Range<UInt64>?
  ) throws(StoreError) {
    var basis = current.load(ordering: .acquiring)
    _ = try publish(since: &basis, unlessMoved: [], forgettingFile: forgettingFile, edit)
  }

  /// As `change`, but only where the mapping of the blocks of `edges` is still that of `basis`. Returns whether it published;
  /// else `basis` is the view to look at next.
  func publish(
    since basis: inout View<Backing>, unlessMoved edges: BlockEdges, forgettingFile: Bool = false,
    _ edit: (inout Backing.Map) throws(StoreError) -> Range<UInt64>?
  ) throws(StoreError) -> Bool {
    let basisBefore = basis
    // The old view leaves the lock in `basis`: when its last reference goes, blocks are freed, which takes time.
    return try writers.withLock { () throws(StoreError) in
      let now = current.load(ordering: .relaxed)  // Stored only under this lock.
      basis = now
      if now !== basisBefore, edges.contains(where: { now.map.target(of: $0) != basisBefore.map.target(of: $0) }) {
        return false
      }
      try reclaimer.check()
      var map = now.map
      guard let blocks = try edit(&map) else { return false }
      var retired = PhysicalRunList()
      now.map.forEachPiece(in: blocks) { piece, target in
        if let block = target?.physicalBlock { retired.append(PhysicalRun(block: block, count: piece.length)) }
        return true
      }
      if forgettingFile {
        try backing.removeMap(of: inode)
      } else {
        try backing.setMap(map, of: inode, changed: blocks)
      }
      let successor = View(map, reclaimer)
      now.retire(retired, successor: successor)
      current.store(successor, ordering: .releasing)  // Pairs with the acquiring loads of readers.
      return true
    }
  }
}

extension BlockFile {
  /// Opens the file `inode` of `store`; an unknown one is empty.
  public convenience init<Store>(_ store: Store, inode: Inode, overwritesInPlace: Bool = false) throws(StoreError)
  where Backing == ExtentBacking<Store> {
    try self.init(ExtentBacking(store), inode: inode, overwritesInPlace: overwritesInPlace)
  }

  /// Opens the file `inode` of `store`; an unknown one is empty.
  public convenience init<Store>(_ store: Store, inode: Inode, overwritesInPlace: Bool = false) throws(StoreError)
  where Backing == BlockChainBacking<Store> {
    try self.init(BlockChainBacking(store), inode: inode, overwritesInPlace: overwritesInPlace)
  }

  /// Makes `inode`, which must be unknown, a file that shares every block with this one as it is now; from then on they
  /// are two files. Cost: O(extents).
  ///
  /// - Throws: `.wrongInode` where `inode` is a file already, `.inUse` where it is open as an empty one.
  public func clone<Store: COWStore>(to inode: Inode) throws(StoreError) -> ExtentFile<Store>
  where Backing == ExtentBacking<Store> {
    // Under the lock the store's mapping is the published one, and so the clone's.
    let (opened, map) = try withoutOverwriting { () throws(StoreError) in
      try writers.withLock { () throws(StoreError) in
        (try backing.store.clone(self.inode, to: inode), current.load(ordering: .relaxed).map)
      }
    }
    return BlockFile(backing, inode, opened, map, overwriting != nil)
  }
}
