internal import Atomics
package import Devices
internal import Logging

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
    engine.checkpoints.trust.set(recovery.volumes.isEmpty)
    for (inode, recovered) in recovery.volumes {
      guard let record = recovered.record else { continue }
      // Open without a user: the checkpoint closes it.
      let adoption = engine.volumes.open(
        inode, record, overlay: recovered.overlay, asOf: recovery.superblock.generation, userCount: 0)
      if case .open(let volume) = adoption { volume.didRecover(superseded: recovered.superseded) }
    }
    if !readOnly {
      try engine.space.requireReadableGroup()
      try engine.checkpoints.countBlocks()
      // Without changes there is nothing to merge, and the new epoch is for records alone.
      if purpose == .writing || !recovery.volumes.isEmpty {
        try engine.checkpoints.withTurn { turn throws(ExtentFSError) in
          let plan = CheckpointPlan(turn.makeCatalogEditor())
          plan.catalog.superblock.journalEpoch = epoch
          try turn.write(plan)
        }
      } else {
        engine.reserve.didCheckpoint()
      }
      engine.checkpoints.carryByteCountMax.store(carryByteCountMax, ordering: .relaxed)
    }
    engine.checkpoints.trust.set(true)
    log.write(
      .info, "the store is open", recovery.facts + [(.milliseconds, (ContinuousClock.now - start).milliseconds)])
    if purpose != .writing { engine.health.becomeReadOnly() }
    return (engine, recovery.warnings)
  }
}
