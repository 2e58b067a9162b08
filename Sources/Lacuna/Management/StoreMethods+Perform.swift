internal import Devices
internal import ExtentFS
internal import Glibc

extension GetStoreInfo {
  public func perform(
    on store: Store, progress: (Progress) throws(LacunaError) -> Void
  ) throws(LacunaError) -> StoreInfo {
    let store = try store.onDisk(for: Self.self)
    store.bringUpToDate()
    return try store.information()
  }
}

extension SetStore {
  public func perform(
    on store: Store, progress: (Progress) throws(LacunaError) -> Void
  ) throws(LacunaError) -> StoreInfo {
    let store = try store.onDisk(for: Self.self)
    let change = StoreAttributes(defaultVolume: defaultVolume, limitByteCount: limit)
    if change != StoreAttributes() {
      try store.changing { engine throws(ExtentFSError) in try engine.setAttributes(change) }
    }
    return try store.information()
  }
}

extension GetStatistics {
  public func perform(
    on store: Store, progress: (Progress) throws(LacunaError) -> Void
  ) throws(LacunaError) -> StoreStatistics {
    let store = try store.onDisk(for: Self.self)
    store.bringUpToDateSometimes()
    return store.statistics()
  }
}

extension GetDeletions {
  public func perform(
    on store: Store, progress: (Progress) throws(LacunaError) -> Void
  ) throws(LacunaError) -> Deletions {
    let store = try store.onDisk(for: Self.self)
    // Nothing is freed any more where the store has failed, and for now where there is no room for the checkpoint that does it.
    if !store.isReadOnly {
      try onDisk { () throws(ExtentFSError) in
        try store.engine.health.requireWritable()
        if let lack = store.engine.lackOfRoom { throw lack }
      }
    }
    let backlog = try onDisk { () throws(ExtentFSError) in try store.engine.deletionBacklog() }
    // What a damaged store counts may be too much for a sum.
    return Deletions(
      volumes: UInt64(backlog.count), mappedLeft: store.bytes(backlog.reduce(0) { $0 &+ $1.mappedBlockCount }),
      damaged: UInt64(backlog.count { $0.damage != nil }))
  }
}

extension TrimStore {
  public func perform(
    on store: Store, progress: (Progress) throws(LacunaError) -> Void
  ) throws(LacunaError) -> TrimResult {
    let store = try store.onDisk(for: Self.self)
    var ending: LacunaError?
    do throws(LacunaError) {
      let found = try withoutActuallyEscaping(progress) { progress throws(LacunaError) in
        try store.changing { engine throws(ExtentFSError) in
          try engine.reclaimAll { done, total throws(ExtentFSError) in
            do throws(LacunaError) {
              try progress(Progress(stage: "giving back space", done: done, total: total, unit: .blocks))
            } catch {
              ending = error
              throw ExtentFSError(.failed, "the call was ended")
            }
          }
        }
      }
      return TrimResult(bytes: found.byteCount, exact: found.isKnown)
    } catch {
      if let ending { throw ending }
      guard error.code == .deviceFailed(errno: EOPNOTSUPP) else { throw error }
      throw LacunaError(
        .notSupported, "\(store.path) keeps its storage: the file system or the device below it cannot discard")
    }
  }
}

extension CheckStore {
  public func perform(
    on store: Store, progress: (Progress) throws(LacunaError) -> Void
  ) throws(LacunaError) -> CheckResult {
    let store = try store.onDisk(for: Self.self)
    // What was written so far is part of it.
    if !store.isReadOnly { try onDisk { () throws(ExtentFSError) in try store.engine.checkpoint() } }
    var ending: LacunaError?
    do throws(ExtentFSError) {
      let report = try withoutActuallyEscaping(progress) { progress throws(ExtentFSError) in
        try store.engine.check(readsData: data) { done, total throws(ExtentFSError) in
          do throws(LacunaError) {
            try progress(Progress(stage: "checking", done: done, total: total, unit: .blocks))
          } catch {
            ending = error
            throw ExtentFSError(.failed, "the check was ended")
          }
        }
      }
      return CheckResult(report, of: store)
    } catch {
      throw ending ?? LacunaError(error)
    }
  }
}

extension CheckResult {
  fileprivate init(_ report: StoreCheckReport, of store: DiskStore) {
    let totals = report.totals
    // What was found earlier may have been replaced since, or be in no tree.
    let earlier = store.engine.damage.all.filter { damage in
      !report.findings.contains { $0.path == damage.part || $0.block != nil && $0.block == damage.block }
    }
    let notes = report.notes + (store.device.isCopiedOnWrite ? [Self.noteOnCopyOnWrite(store.path)] : [])
    self.init(
      findings: report.findings.map(Finding.init) + earlier.map(Finding.init),
      volumes: UInt64(report.accounts.count), blocks: totals.used,
      accounts: Accounts(
        nodes: store.bytes(totals.nodes), exclusive: store.bytes(totals.exclusiveData),
        shared: store.bytes(totals.sharedData), fixed: store.engine.usage.fixedByteCount),
      notes: notes.isEmpty ? nil : notes)
  }

  private static func noteOnCopyOnWrite(_ path: String) -> String {
    "\(path) is on btrfs without the attribute NOCOW, so that each overwrite takes room, and may fail where the file system is full; "
      + "new stores have it, and one gets it by being copied into an empty file that has (touch NEW; chattr +C NEW; "
      + "cp --reflink=never OLD NEW)"
  }
}

extension CheckResult.Finding {
  fileprivate init(_ finding: ExtentFS.Finding) {
    self.init(kind: Kind(finding.kind), path: finding.path, text: finding.text)
  }

  /// What the open store met, and the check did not.
  fileprivate init(_ damage: Damage) {
    self.init(kind: .earlier, path: damage.part, text: "\(damage.facts); \(damage.effect)")
  }
}

extension CheckResult.Finding.Kind {
  fileprivate init(_ kind: ExtentFS.Finding.Kind) { self.init(rawValue: kind.rawValue) }

  static let earlier = Self(ExtentFS.Finding.Kind.earlier)
}

extension DumpBlock {
  public func perform(
    on store: Store, progress: (Progress) throws(LacunaError) -> Void
  ) throws(LacunaError) -> BlockDump {
    let store = try store.onDisk(for: Self.self)
    let dump = try onDisk { () throws(ExtentFSError) in try StoreDump(store.device, at: store.engine.superblock) }
    guard block < dump.blockCount else {
      throw LacunaError(.outOfRange, "the store has blocks from 0 to \(dump.blockCount - 1), and no block \(block)")
    }
    let found = try onDisk { () throws(ExtentFSError) in try dump.dump(block) }
    return BlockDump(
      block: block, kind: found.name, text: found.text.map(\.visible).joined(separator: "\n"),
      fields: found.fields.map { BlockDump.Field(name: $0.name, value: $0.value) })
  }
}

extension StopServing {
  package func perform(
    on store: Store, progress: (Progress) throws(LacunaError) -> Void
  ) throws(LacunaError) -> Result {
    let store = try store.onDisk(for: Self.self)
    guard let endServing = store.endServing else {
      throw LacunaError(.notSupported, "\(store.path) is open in a process that is no server")
    }
    var failure: LacunaError?
    if !store.isReadOnly {
      do { try onDisk { () throws(ExtentFSError) in try store.engine.checkpoint() } } catch { failure = error }
    }
    return Result(pid: try endServing(), flushFailure: failure?.description)
  }
}
