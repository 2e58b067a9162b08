internal import Logging
internal import Atomics
internal import Bytes
internal import Checksums
package import Devices
internal import Extents

/// What a journal says has changed since the superblock, of one volume.
struct RecoveredVolume {
  /// Nil where that cannot be read.
  var record: InodeRecord?
  var delta = Delta()
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
  let spaceRoot: Locked<TreeRoot>
  let space: SpaceMap
  let checksums: ChecksumTable
  private let mapping: MappedRange?
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
    let root = Locked(superblock.space)
    self.nodes = nodes
    spaceRoot = root
    let records = GroupRecords(
      source: { group throws(ExtentFSError) in
        while true {
          let tree = root.withLock { $0 }
          do throws(ExtentFSError) {
            return try TreeReader(cache: nodes, root: tree, kind: .space).find(group)?.withValue {
              value throws(ExtentFSError) in
              try GroupRecord(decoding: value, at: 0)
            }
          } catch {
            // Nobody holds the tree's epoch: a checkpoint that ended meanwhile may have given its nodes to others.
            guard root.withLock({ $0 }) != tree else { throw error }
          }
        }
      },
      survey: { body, unreadable throws(ExtentFSError) in
        let tree = TreeReader(cache: nodes, root: root.withLock { $0 }, kind: .space)
        try tree.forEachPart { part, keys throws(ExtentFSError) in
          if case .unreadable(let error) = part { unreadable(keys, error) }
          guard case .leaf(let leaf) = part else { return true }
          for index in 0..<leaf.count {
            let group = leaf.key(at: index)
            do throws(ExtentFSError) {
              let record = try leaf.withValue(at: index) { value throws(ExtentFSError) in
                try GroupRecord(decoding: value, at: 0)
              }
              body(group, record)
            } catch {
              if group < .max { unreadable(group..<group + 1, error) }
            }
          }
          return true
        }
      })
    space = try SpaceMap(
      device: device, geometry: geometry, blockCount: deviceBlockCount, usedBlockCount: superblock.usedBlockCount,
      growingUpTo: device.canGrow ? options.limitBlockCount(of: superblock) : nil,
      records: records, damage: damage)
    checksums = ChecksumTable(space: space, byteBudget: half, damage: damage)
    // Before the journal is read: that would fill the kernel's memory with large folios of it.
    mapping = readOnly ? nil : device.map(geometry.journalRegion)
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
        "\(part): \(broken.error.facts); \(broken.effect), and what the other one leads to is not as it was (\(finding)), so that nothing is written"
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
        "the journal cannot be read behind record \(end.lastSequence); what was changed after that is missing")
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
    _ = try journal.forEach { record throws(ExtentFSError) in
      recordCount += 1
      try apply(record, isDurable: record.sequence <= end.durableSequence)
    }
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

  private mutating func apply(_ record: JournalRecord, isDurable: Bool) throws(ExtentFSError) {
    switch record.change {
    case .map(let inode, let logical, let physical, let sums):
      let run = PhysicalRun(block: physical, count: UInt64(sums.count))
      let isThere = isDurable || !options.verifiesRecoveredData ? true : try holds(run, sums)
      guard isThere else {
        dropped.note(inode, blockCount: run.count)
        log.write(
          .debug,
          "record \(record.sequence) is left out: of blocks \(logical..<logical + run.count) of inode \(inode), which did "
            + "not reach the device")
        return
      }
      try space.claim(run)
      unsafe sums.withUnsafeBufferPointer { unsafe checksums.set(run, $0) }
      try change(inode, logical..<logical + run.count, to: .physical(physical))
    case .unmap(let inode, let blocks):
      try change(inode, blocks, to: .hole)
    case .reserve(let inode, let blocks):
      try change(inode, blocks, to: .reservedZeroes)
    case .commitMarker:
      break
    }
  }

  private mutating func change(
    _ inode: UInt64, _ blocks: Range<UInt64>, to target: DeltaTarget
  ) throws(ExtentFSError) {
    if volumes[inode] == nil {
      let catalog = Catalog(nodes: nodes, superblock: superblock)
      do throws(ExtentFSError) {
        guard let record = try catalog.record(of: inode) else {
          // What is missing is not what cannot be read.
          throw ExtentFSError(.failed, "the journal changes inode \(inode), which is not there")
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
    volume.delta.forEachRun(in: blocks) { run in
      // What was carried along is said twice, once before the cut of a checkpoint that never ended, and once behind it.
      if run.value == target.advanced(by: run.positions.lowerBound - blocks.lowerBound) { return true }
      if let block = run.value.physicalBlock {
        volume.superseded.append(PhysicalRun(block: block, count: run.positions.length))
      }
      return true
    }
    volume.delta.replace(blocks, with: target)
  }

  /// Whether the blocks of `run` hold what has these checksums. Blocks behind the device's end hold nothing: a device that
  /// grew without a sync may be short again after a power cut. Those that the device does not give count as there: who reads them
  /// is told.
  private func holds(_ run: PhysicalRun, _ sums: [UInt32]) throws(ExtentFSError) -> Bool {
    let blockSize = superblock.geometry.blockSize
    let end = run.block.addingReportingOverflow(run.count)
    guard !end.overflow, end.partialValue <= device.byteCount >> blockSize.shift else { return false }
    let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: blockSize.byteCount, alignment: 4096)
    defer { unsafe buffer.deallocate() }
    for (index, sum) in sums.enumerated() {
      do throws(ExtentFSError) {
        try unsafe device.readPart(into: buffer, at: blockSize.offset(of: run.block + UInt64(index)))
      } catch {
        guard error.isUnreadable else { throw error }
        continue
      }
      if unsafe CRC32C.checksum(UnsafeRawBufferPointer(buffer)) != sum { return false }
    }
    return true
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
      spaceRoot: spaceRoot, health: health, log: log,
      journal: try JournalRing(
        device: device, region: region, identity: identity, start: start, mapping: mapping,
        keptByteCount: superblock.geometry.keptJournalByteCount, health: health),
      damage: damage, strayChanges: volumes.filter { $0.value.record == nil }.mapValues(\.delta),
      mergesJournal: !readOnly, carryByteCountMax: carryByteCountMax)
  }
}

extension Engine {
  /// Opens the store on `device`: the newest superblock, and what the journal says has changed since.
  ///
  /// For writing, one checkpoint then merges that and begins a new epoch of the journal. Nothing is written before all has
  /// been read, and a crash at any point leaves a store that opens the same way again.
  ///
  /// - Parameter readOnly: nothing is written at all, now or later.
  /// - Returns: the engine, and what the user should be told.
  /// - Throws: `.notAStore`, `.newerFormat`, `.damaged`, `.device`; `.readOnlyFormat` for a store that this program may only read, unless `readOnly`;
  ///   `.outOfSpace` where there is no room for the checkpoint.
  package static func open(
    _ device: any BlockDevice, _ options: EngineOptions, readOnly: Bool = false
  ) throws(ExtentFSError) -> (engine: Engine, warnings: [String]) {
    try open(device, options, readOnly ? .reading : .writing)
  }

  /// Opens the store on `device` to be looked at, as it would be if it were opened for writing: what the journal says is in its
  /// trees, so that whoever compares them, or counts what is in them, misses nothing. Afterwards nothing more can be changed.
  ///
  /// - Parameter device: one that keeps to itself what is written to it, such as a `FileDevice` with the access `scratch`.
  /// - Throws: as `open` for writing. The store may still be one that can be opened with `readOnly`.
  package static func openScratch(
    _ device: any BlockDevice, _ options: EngineOptions
  ) throws(ExtentFSError) -> (engine: Engine, warnings: [String]) {
    try open(device, options, .scratch)
  }

  /// What a store is opened for.
  private enum Purpose {
    case writing
    /// To be read, without a write to the device.
    case reading
    /// To be read, after what is written to the device has gone into memory.
    case scratch
  }

  private static func open(
    _ device: any BlockDevice, _ options: EngineOptions, _ purpose: Purpose
  ) throws(ExtentFSError) -> (engine: Engine, warnings: [String]) {
    let log = EngineLog(options.logger)
    defer { log.send() }
    let damage = DamageRegister { log.keep(.warning, $0.text, [(.part, $0.part)]) }
    do throws(ExtentFSError) {
      return try open(device, options, purpose, damage, log, carries: false)
    } catch {
      guard error.code == .tooMuchToCarry else { throw error }
      return try open(device, options, purpose, damage, log, carries: true)
    }
  }

  /// Opens the store.
  ///
  /// - Parameter carries: whether the journal begins behind what it has, so that what cannot be merged has room in it.
  private static func open(
    _ device: any BlockDevice, _ options: EngineOptions, _ purpose: Purpose, _ damage: DamageRegister,
    _ log: EngineLog, carries: Bool
  ) throws(ExtentFSError) -> (engine: Engine, warnings: [String]) {
    let readOnly = purpose == .reading
    let start = ContinuousClock.now
    var recovery = try Recovery(device, options, readOnly: readOnly, damage, log)
    if !readOnly, let features = recovery.superblock.featuresAgainstWriting {
      throw ExtentFSError(
        .readOnlyFormat, "the store has features unknown to this program, which may therefore only read it: \(features)"
      )
    }
    try recovery.tellOfBrokenSuperblock(mayWrite: purpose != .writing || options.acceptsOlderSuperblock)
    let (journal, end) = try recovery.replay()
    if !readOnly {
      // What was read may be in the kernel alone, such as a superblock that a process wrote and died. It has to be durable
      // before anything is written to blocks that are free by it, and in use by the superblock before it (R1).
      do { try device.sync() } catch { throw ExtentFSError(error) }
      if try device.replaceBrokenSuperblock(recovery.search) {
        do { try device.sync() } catch { throw ExtentFSError(error) }
      }
    }
    let (journalStart, room) = carries ? journal.startBehind(end) : (journal.nextStart, 0)
    // One that carries writes records before its superblock, and others may have died after that: so its epoch is its own.
    let epoch = recovery.superblock.journalEpoch &+ (carries ? .random(in: 2...1 << 32) : 1)
    let carryByteCountMax = recovery.superblock.geometry.keptJournalByteCount / 2
    let engine = Engine(
      try recovery.parts(journalAt: journalStart, epoch: epoch, carryByteCountMax: min(room, carryByteCountMax)),
      options: options)
    engine.trustsChanges.store(recovery.volumes.isEmpty, ordering: .relaxed)
    for (inode, recovered) in recovery.volumes {
      guard let record = recovered.record else { continue }
      // Open without a user: the checkpoint closes it.
      let adoption = engine.adopt(
        inode, record, delta: recovered.delta, asOf: recovery.superblock.generation, userCount: 0)
      if case .open(let volume) = adoption { volume.writers.withLock { $0.superseded = recovered.superseded } }
    }
    if !readOnly {
      do throws(ExtentFSError) {
        try engine.space.requireReadableGroup()
        try engine.countBlocks()
        // Without changes there is nothing to merge, and the new epoch is for records alone.
        if purpose == .writing || !recovery.volumes.isEmpty {
          let plan = CheckpointPlan(engine.makeCatalogEditor())
          plan.catalog.superblock.journalEpoch = epoch
          try engine.write(plan)
        } else {
          engine.updateReserve()
        }
        engine.carryByteCountMax.store(carryByteCountMax, ordering: .relaxed)
      } catch {
        engine.letGoOfVolumes()
        throw error
      }
    }
    engine.trustsChanges.store(true, ordering: .relaxed)
    log.write(
      .info, "the store is open", recovery.facts + [(.milliseconds, (ContinuousClock.now - start).milliseconds)])
    if purpose != .writing { engine.health.becomeReadOnly() }
    return (engine, recovery.warnings)
  }
}
