internal import Atomics
internal import Bytes
internal import Devices
internal import Extents
internal import Logging

/// What a journal says has changed since the superblock, of one volume.
struct RecoveredVolume {
  /// Nil where that cannot be read.
  var record: InodeRecord?
  var overlay = Overlay()
  /// Blocks that records mapped and later records superseded.
  var superseded: [PhysicalRun] = []
}

/// Reads a store's superblock and journal, and makes of them the parts of an engine. It writes nothing.
struct Recovery {
  let device: any BlockDevice
  let options: EngineOptions
  let superblock: Superblock
  let slot: Int
  let search: SuperblockSearch
  let nodes: NodeCache
  let spaceTree: SpaceTree
  let space: SpaceMap
  let checksums: ChecksumTable
  private let medium: any JournalMedium
  private(set) var volumes: [UInt64: RecoveredVolume] = [:]
  /// What the user should know.
  private(set) var warnings: [String] = []
  private var dropped = DroppedWrites()
  let damage: DamageRegister
  private let readOnly: Bool
  private let log: EngineLog
  /// How many records of the journal were read.
  private(set) var recordCount = 0

  init(
    _ device: any BlockDevice, _ options: EngineOptions, readOnly: Bool, _ damage: DamageRegister, _ log: EngineLog
  ) throws(ExtentFSError) {
    (self.damage, self.readOnly, self.log) = (damage, readOnly, log)
    self.device = device
    self.options = options
    search = try device.findSuperblock()
    (superblock, slot) = (search.superblock, search.slot)
    let geometry = superblock.geometry
    let deviceBlockCount = device.byteCount >> geometry.blockSize.shift
    guard superblock.blockCount <= deviceBlockCount else {
      throw ExtentFSError(
        .damaged, "the store has \(superblock.blockCount) blocks, but its device only \(deviceBlockCount)")
    }
    if superblock.hasLostLimit {
      warnings.append(
        "the store had a limit, which an older program has lost; its file grows as far as the host lets it, "
          + "until 'lacuna set STORE --limit' sets one")
    }
    let half = Int(clamping: options.cacheByteCount / 2)
    let nodes = NodeCache(device: device, blockSize: geometry.blockSize, byteLimit: half)
    let spaceTree = SpaceTree(superblock.space, nodes)
    self.nodes = nodes
    self.spaceTree = spaceTree
    let records = GroupRecords(
      source: { group throws(ExtentFSError) in try spaceTree.record(of: group) },
      survey: { body, unreadable throws(ExtentFSError) in
        try spaceTree.forEachRecord(body, unreadable: unreadable)
      })
    space = try SpaceMap(
      device: device, geometry: geometry, blockCount: deviceBlockCount, usedBlockCount: superblock.usedBlockCount,
      growingUpTo: device.canGrow ? options.limitBlockCount(of: superblock) : nil,
      records: records, damage: damage)
    checksums = ChecksumTable(space: space, byteBudget: half, damage: damage)
    // Before the journal is read: that would fill the kernel's memory with large folios of it.
    let region = geometry.journalRegion
    medium = readOnly ? WrittenJournal(device, at: region.lowerBound) : device.journalMedium(region)
  }

  /// Takes note of a superblock that was damaged.
  ///
  /// - Parameter mayWrite: whether a newer superblock may be given up for the one that counts, whatever that leads to.
  mutating func tellOfBrokenSuperblock(mayWrite: Bool) throws(ExtentFSError) {
    guard let broken = search.broken, let part = broken.part else { return }
    damage.note(part, broken.error, broken.effect)
    warnings.append("\(part): \(broken.error.facts); \(broken.effect)")
    guard !mayWrite, broken.meaning == .unknown else { return }
    // A power cut may have left it so; then the other one is the newest, and all is right that it leads to. Else what it leads to may
    // be in use for what came after, and would be written over.
    let report = try StoreCheck.run(on: device, at: superblock, readsData: false)
    if let finding = report.findings.first(where: { $0.kind != .superblock }) {
      throw ExtentFSError(
        .olderSuperblock,
        "\(part): \(broken.error.facts); \(broken.effect), and what the other one references is not as it was (\(finding)), so that nothing is written"
      )
    }
  }

  private var region: Range<UInt64> { superblock.geometry.journalRegion }

  /// Reads the journal, twice: once to learn what a completed sync had made durable, then to do it again in memory. Records
  /// of later data count only if that data reached the device, which its checksums tell; it was never promised.
  ///
  /// - Returns: the journal, and where it ends.
  mutating func replay() throws(ExtentFSError) -> (journal: JournalReplay, end: JournalEnd) {
    let journal = try JournalReplay(
      device: device, region: region,
      identity: JournalIdentity(storeTag: superblock.uuid.tag, epoch: superblock.journalEpoch),
      tail: JournalPosition(offset: superblock.journalTailOffset, sequence: superblock.journalTailSequence))
    let end = try journal.forEach { _ throws(ExtentFSError) in }
    if let error = end.damage {
      // The next record may stand there, acknowledged or even flushed.
      guard readOnly else { throw error }
      warnings.append(
        "the journal cannot be read past record \(end.lastSequence); what was changed after that is missing")
      damage.note("the journal", error, "what was changed after record \(end.lastSequence) is missing")
    } else if let lost = try journal.lostDurableSequence(after: end) {
      let error = ExtentFSError(
        .damaged,
        "the journal ends at record \(end.lastSequence), but record \(lost) was durable: the device lost what it had synced"
      )
      guard readOnly else { throw error }
      warnings.append("\(error.facts); what was changed after that is missing")
      damage.note("the journal", error, "what was changed after that is missing")
    }
    let verifier = DataVerifier(device, superblock.geometry.blockSize)
    _ = try journal.forEach { record throws(ExtentFSError) in
      recordCount += 1
      if record.sequence <= end.durableSequence || !options.verifiesRecoveredData {
        try apply(record)
      } else {
        // From the first one on they wait for each other, so that their data is read together, and keep their order.
        verifier.add(record)
        if verifier.isFull { try applyVerified(verifier) }
      }
    }
    try applyVerified(verifier)
    if let text = dropped.text(superblock.geometry.blockSize, name: nameForPeople) { warnings.append(text) }
    return (journal, end)
  }

  /// What recovery did, in numbers.
  var facts: EngineLog.Facts {
    [(.records, "\(recordCount)"), (.volumes, "\(volumes.count)"), (.leftOutWrites, "\(dropped.writeCount)")]
  }

  /// What an inode is called in messages.
  private func nameForPeople(_ inode: UInt64) -> String {
    // Whose record is missing or cannot be read is told elsewhere.
    let record = volumes[inode]?.record ?? (try? Catalog(nodes: nodes, superblock: superblock).record(of: inode))
    guard let name = record?.name, !name.isEmpty else { return "inode \(inode)" }
    return "'\(name)'"
  }

  /// Does again what the records in `verifier` say, in their order, but for those whose data did not reach the device.
  private mutating func applyVerified(_ verifier: DataVerifier) throws(ExtentFSError) {
    for (record, isThere) in try verifier.verify() {
      guard !isThere, case .map(let inode, let logical, _, let sums) = record.change else {
        try apply(record)
        continue
      }
      dropped.note(inode, blockCount: UInt64(sums.count))
      log.write(
        .debug,
        "record \(record.sequence) is left out: of blocks \(logical..<logical + UInt64(sums.count)) of inode \(inode), which did "
          + "not reach the device")
    }
  }

  private mutating func apply(_ record: JournalRecord) throws(ExtentFSError) {
    switch record.change {
    case .map(let inode, let logical, let physical, let sums):
      let run = PhysicalRun(block: physical, count: UInt64(sums.count))
      try space.claim(run)
      unsafe sums.withUnsafeBufferPointer { unsafe checksums.set(run, $0) }
      try change(inode, logical..<logical + run.count, to: .physical(physical))
    case .unmap(let inode, let blocks):
      try change(inode, blocks, to: .hole)
    case .reserve(let inode, let blocks):
      try change(inode, blocks, to: .unwritten)
    case .commitMarker:
      break
    }
  }

  private mutating func change(
    _ inode: UInt64, _ blocks: Range<UInt64>, to target: BlockLocation
  ) throws(ExtentFSError) {
    if volumes[inode] == nil {
      let catalog = Catalog(nodes: nodes, superblock: superblock)
      do throws(ExtentFSError) {
        guard let record = try catalog.record(of: inode) else {
          // What is missing is not what cannot be read.
          throw ExtentFSError(.failed, "the journal changes inode \(inode), which does not exist")
        }
        volumes[inode] = RecoveredVolume(record: record)
      } catch {
        guard error.isUnreadable else {
          throw ExtentFSError(error.code == .failed ? .damaged : error.code, error.facts)
        }
        damage.note(
          "inode \(inode)", key: DamageRegister.key(ofInode: inode), error,
          "it cannot be opened; what was changed of it stays in the journal")
        volumes[inode] = RecoveredVolume()
      }
    }
    guard var volume = volumes.removeValue(forKey: inode) else { return }
    defer { volumes[inode] = volume }
    let byteCount = volume.record?.byteCount ?? UInt64(Int64.max)
    guard blocks.upperBound <= superblock.geometry.blockSize.blocks(toHold: byteCount) else {
      throw ExtentFSError(.damaged, "the journal changes blocks \(blocks) of inode \(inode), which has fewer")
    }
    volume.overlay.forEachRun(in: blocks) { run in
      // What was carried along is said twice, once before the cut of a checkpoint that never ended, and once behind it.
      if run.value == target.advanced(by: run.positions.lowerBound - blocks.lowerBound) { return true }
      if let block = run.value.physicalBlock {
        volume.superseded.append(PhysicalRun(block: block, count: run.positions.length))
      }
      return true
    }
    volume.overlay.replace(blocks, with: target)
  }

  /// The parts of an engine whose journal begins at `start`, in the new epoch `epoch`.
  func parts(
    journalAt start: JournalPosition, epoch: UInt64, carryByteCountMax: UInt64
  ) throws(ExtentFSError) -> EngineParts {
    let identity = JournalIdentity(storeTag: superblock.uuid.tag, epoch: epoch)
    let health = EngineHealth { [log] failure in
      log.keep(
        .error, "the store refuses changes until it is opened again: \(failure.step.rawValue) failed: \(failure.cause)",
        [(.step, "\(failure.step)"), (.error, "\(failure.cause)")])
    }
    return EngineParts(
      device: device, superblock: superblock, slot: slot, nodes: nodes, space: space, checksums: checksums,
      spaceTree: spaceTree, health: health, log: log,
      journal: try JournalRing(
        device: device, region: region, identity: identity, start: start, medium: medium,
        keptByteCount: superblock.geometry.keptJournalByteCount, health: health),
      damage: damage, strayChanges: volumes.filter { $0.value.record == nil }.mapValues(\.overlay),
      mergesJournal: !readOnly, carryByteCountMax: carryByteCountMax)
  }
}
