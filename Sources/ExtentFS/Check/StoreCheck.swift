internal import Bytes
package import Devices
internal import Extents

/// Reads a whole store as its newest superblock describes it, and says what is wrong with it. It writes nothing.
///
/// It does not trust the engine's bookkeeping: it walks every tree, counts the places that lead to each block, and only then
/// compares with the bitmaps, the tree of shared runs and the counts on the device. What several volumes share is walked once.
/// What the journal holds is not part of it: run it on a store that was recovered, or closed; or on one in use, through
/// ``Engine/check(readsData:progress:)``. See ``StorePoints`` for that.
///
/// Memory: two bits for each block of the device, a third in groups with nodes, the runs of blocks that are shared, a few
/// words for each shared node, the inodes' records, and a few nodes. One thread uses it.
package final class StoreCheck {
  let device: any BlockDevice
  let points: StorePoints
  let nodes: NodeCache
  /// The point whose trees are walked.
  var superblock: Superblock
  var geometry: StoreGeometry { superblock.geometry }
  var report = StoreCheckReport()
  var census: BlockCensus
  /// The groups' records.
  var records: [UInt64: GroupRecord] = [:]
  /// What the tree of shared runs says.
  var table = RunMap<ReferenceCount>()
  /// The inodes, in order.
  var inodes: [UInt64: InodeRecord] = [:]
  /// The inodes by the keys of their names.
  var names: [UInt64: UInt64] = [:]
  /// The shared nodes that were walked.
  var sharedSubtrees: [UInt64: Subtree] = [:]
  /// What is being walked, and the nodes from its root to where the walk is.
  var label = ""
  var trail: [UInt64] = []
  var account: StoreCheckReport.Account?
  let readsData: Bool
  private let progress: (UInt64, UInt64) throws(ExtentFSError) -> Void
  private var toldCount: UInt64 = 0

  /// How many blocks pass between two calls of `progress`.
  private static var progressBlockCount: UInt64 { 4096 }

  /// Everything that is wrong with the store on `device`; empty where nothing is. As `run`.
  package static func findings(on device: any BlockDevice, readsData: Bool = true) throws(ExtentFSError) -> [Finding] {
    try run(on: device, readsData: readsData).findings
  }

  /// Checks the store on `device`, which does not change meanwhile.
  ///
  /// - Parameters:
  ///   - superblock: the one to start from; nil for the newest on the device.
  ///   - readsData: also reads every block of every volume and compares its checksum.
  ///   - progress: hears now and then how many blocks were looked at, and how many are in use. What it throws ends the check.
  /// - Throws: where there is no superblock to begin with, or the device cannot be read.
  package static func run(
    on device: any BlockDevice, at superblock: Superblock? = nil, readsData: Bool = true,
    progress: @escaping (UInt64, UInt64) throws(ExtentFSError) -> Void = { _, _ in }
  ) throws(ExtentFSError) -> StoreCheckReport {
    var point = superblock
    if point == nil { point = try device.newestSuperblock().superblock }
    guard let point else { throw ExtentFSError(.notAStore, "there is no superblock to begin with") }
    return try StoreCheck(device, .fixed(point), readsData: readsData, progress: progress).run()
  }

  /// A check of the store on `device` at `points`, to be run once.
  init(
    _ device: any BlockDevice, _ points: StorePoints, readsData: Bool,
    progress: @escaping (UInt64, UInt64) throws(ExtentFSError) -> Void
  ) {
    self.device = device
    self.points = points
    self.readsData = readsData
    self.progress = progress
    superblock = points.take()
    nodes = NodeCache(device: device, blockSize: superblock.geometry.blockSize, byteLimit: 4 << 20)
    census = BlockCensus(superblock.geometry, blockCount: 0)
  }

  /// Does all of it.
  func run() throws(ExtentFSError) -> StoreCheckReport {
    try readSpace()
    report.generation = superblock.generation
    try checkSlots()
    try readShared()
    try readNames()
    try readInodes()
    for (inode, record) in inodes.sorted(by: { $0.key < $1.key }) { try checkInode(inode, record) }
    checkNames()
    checkBitmaps()
    checkNumbers()
    try checkReferences()
    if readsData { try checkData() }
    try tell(isLast: true)
    return report
  }

  /// Says how far the check is.
  func tell(isLast: Bool = false) throws(ExtentFSError) {
    let done = readsData ? census.nodeCount + report.verifiedBlockCount + report.skippedBlockCount : census.metCount
    guard isLast || done >= toldCount + Self.progressBlockCount else { return }
    toldCount = done
    try progress(min(done, superblock.usedBlockCount), superblock.usedBlockCount)
  }

  /// Where the walk is.
  var path: String { trail.reduce(into: label) { $0 += " > block \($1)" } }

  /// Keeps what is wrong with the store; what is wrong with the device ends the check.
  func note(_ error: ExtentFSError, _ path: String) throws(ExtentFSError) {
    guard error.code == .damaged else { throw error }
    report.note(Finding(.metadata, path, error.facts, block: error.block))
  }

  /// Looks at both slots. One that a power cut tore is no finding.
  private func checkSlots() throws(ExtentFSError) {
    var found: SuperblockSearch?
    try points.withoutCheckpoints { () throws(ExtentFSError) in found = try device.findSuperblock() }
    guard let broken = found?.broken, let part = broken.part else { return }
    report.note(.superblock, part, "\(broken.error.facts); \(broken.effect)")
  }

  /// Compares the superblock's numbers with what was found.
  private func checkNumbers() {
    func compare(_ said: UInt64, _ found: UInt64, _ what: String) {
      if said != found { report.note(.number, "", "the superblock counts \(said) \(what) \(found)") }
    }
    compare(superblock.usedBlockCount, census.metCount, "used blocks, and the trees reach")
    let groupCount = geometry.groupCount(inDeviceOf: superblock.blockCount)
    if superblock.groupCount != groupCount {
      report.note(
        .number, "",
        "the superblock counts \(superblock.groupCount) groups, and \(superblock.blockCount) blocks have \(groupCount)")
    }
    let deviceBlockCount = device.byteCount >> geometry.blockSize.shift
    if superblock.blockCount > deviceBlockCount {
      report.note(
        .number, "", "the superblock counts \(superblock.blockCount) blocks, and the device has \(deviceBlockCount)")
    }
    if let last = inodes.keys.max(), superblock.nextInode <= last {
      report.note(
        .number, "", "the superblock says that the next inode is \(superblock.nextInode), and \(last) is in use")
    }
    if superblock.defaultInode != 0, inodes[superblock.defaultInode]?.isTransient != false {
      report.note(.number, "", "the superblock's default inode \(superblock.defaultInode) is not there")
    }
    guard superblock.has(.snapshots) else { return }
    compare(superblock.nodeBlockCount, census.nodeCount, "nodes, and the trees have")
    compare(
      superblock.transientCount, UInt64(inodes.values.count { $0.isTransient }), "transient inodes, and there are")
    compare(
      superblock.reservedBlockCount,
      inodes.values.reduce(0) { $0.addingReportingOverflow($1.promisedBlocks).partialValue },
      "reserved blocks, and the volumes reserve")
  }
}
