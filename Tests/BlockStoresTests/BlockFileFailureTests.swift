import BlockStores
import LacunaTestSupport
import Testing

/// The n-th call of the store below fails, for every n.
@Suite struct BlockFileFailureTests {
  /// Operations of every kind, on whole blocks and parts of them, mapped and not.
  private static let script: [FileOperation] = [
    .write(0..<3000), .write(700..<900), .write(512..<1536), .zero(600..<2100, keepsSpace: true), .write(1100..<1200),
    .zero(0..<700, keepsSpace: false), .write(100..<2800), .discard(1024..<2600), .write(5000..<5100), .truncate(5050),
    .zero(5010..<5050, keepsSpace: true), .truncate(1000), .truncate(4000), .write(3000..<6000), .truncate(3100),
    .remove,
    .write(10..<700),
  ]

  /// How long calls fail from the first failure on.
  enum Failing: CaseIterable { case once, everAfter }

  @Test(arguments: Failing.allCases)
  func `a file of extents survives the failure of every call`(failing: Failing) throws {
    try failEveryCall(failing) {
      let store = try StoreKind.shortRuns(2).make(40)
      return (COWFileStore(store, capacity: 40) { store.base.freeBlockCount }, store.faults)
    }
  }

  @Test(arguments: Failing.allCases)
  func `a file of a chain survives the failure of every call`(failing: Failing) throws {
    try failEveryCall(failing) {
      let store = FaultyBlockChainStore(try StoreKind.memoryChain.make(40))
      let files = PlainFileStore(
        BlockChainBacking(store), capacity: 40, freeCount: { store.base.freeBlockCount })
      return (files, store.faults)
    }
  }

  @Test(arguments: Failing.allCases)
  func `a file of extents over bytes survives the failure of every call`(failing: Failing) throws {
    try failEveryCall(failing) {
      let base = FaultyByteStore(MemoryByteStore())
      return (try FileStores.bytes(base, capacity: 40), base.faults)
    }
  }

  /// Runs the script once for each of its calls, with that call failing.
  private func failEveryCall<Store: FileStore>(
    _ failing: Failing, _ make: () throws -> (store: Store, faults: FaultPlan)
  ) throws {
    var call = 1
    while true {
      let (store, faults) = try make()
      faults.start(failing: call..<(failing == .once ? call + 1 : .max))
      do {
        try run(store, faults)
      } catch {
        throw CheckFailure("call \(call), \(faults.failed.first ?? "none"): \(error)")
      }
      if faults.callCount < call { break }
      call += 1
    }
    // The script has to make enough calls for this to mean something.
    #expect(call > 100)
  }

  /// Runs the script with calls that fail, then the rest of it without.
  private func run<Store: FileStore>(_ store: Store, _ faults: FaultPlan) throws {
    guard let model = try runScript(store, faults) else { return }
    let reopened = try store.reopened()
    try model.check(BlockFile(reopened.backing, inode: .one))
    try reopened.checkSpace(of: [.one], lost: lost(faults))
  }

  /// - Returns: what the file has in the end; nil where it could not be opened.
  private func runScript<Store: FileStore>(_ store: Store, _ faults: FaultPlan) throws -> ReferenceFile? {
    guard let file = try? BlockFile(store.backing, inode: .one) else {
      try check(faults.failed == ["extents"] || faults.failed == ["chain"], "\(faults.failed) failed")
      return nil
    }
    var model = ReferenceFile(blockByteCount: 512, reservesZeroes: Store.Backing.Map.holdsUnwritten)
    var hasFailed = false
    for operation in Self.script {
      do throws(StoreError) {
        try operation.apply(to: file)
      } catch {
        hasFailed = true
        let isInjected = if case .deviceFailed = error.code { true } else { false }
        try check(isInjected, "\(operation) failed with \(error)")
        faults.stop()
        // What failed has changed nothing, except that a zeroing may have got half-way.
        if case .zero(let range, _) = operation { try model.adopt(file, afterZeroing: range) }
        do { try model.check(file) } catch { throw CheckFailure("after the failure of \(operation): \(error)") }
        try store.checkSpace(of: [.one], lost: lost(faults))
        continue
      }
      operation.apply(to: &model)
      if hasFailed { try model.check(file) }
    }
    faults.stop()
    try model.check(file)
    try store.checkSpace(of: [.one], lost: lost(faults))
    return model
  }

  /// How many blocks may have gone: those that a failed call should have freed, and where one block of a run failed, the rest
  /// of the run.
  private func lost(_ faults: FaultPlan) -> ClosedRange<UInt64> {
    let least = faults.lostBlockCount
    return least...(faults.failed.contains("freeBlock") ? 40 : least)
  }

  @Test func `a clone whose store fails leaves both files as they were`() throws {
    for call in 1...40 {
      let store = try StoreKind.shortRuns(2).make(40)
      let files = COWFileStore(store, capacity: 40) { store.base.freeBlockCount }
      let file = try BlockFile(files.backing, inode: .one)
      var model = ReferenceFile(blockByteCount: 512, reservesZeroes: true)
      for operation in [FileOperation.write(100..<3000), .zero(512..<1024, keepsSpace: true)] {
        try operation.apply(to: file)
        operation.apply(to: &model)
      }
      store.faults.start(failing: call..<call + 1)
      let write = FileOperation.write(700..<1700)
      var cloneModel = model
      var isCloned = false
      if let clone = try? file.clone(to: .two) {
        isCloned = true
        if (try? write.apply(to: clone)) != nil { write.apply(to: &cloneModel) }
        store.faults.stop()
        try cloneModel.check(clone)
      }
      store.faults.stop()
      if isCloned {
        try cloneModel.check(BlockFile(files.backing, inode: .two))
      } else {
        #expect(try store.extents(of: .two).runs.isEmpty)
      }
      try model.check(file)
      try files.checkSpace(of: [.one, .two], lost: 0...store.faults.lostBlockCount)
    }
  }

  @Test func `a failed release is told to the next writer, and readers go on`() throws {
    let store = try StoreKind.shortRuns(.max).make(40)
    let file = try ExtentFile(store, inode: .one)
    try file.write(pattern(1024, seed: 1), at: 0)
    // Calls of an overwrite: allocate, write, setExtents, free.
    store.faults.start(failing: 4..<5)
    let new = pattern(1024, seed: 2)
    try file.write(new, at: 0)
    #expect(store.faults.failed == ["free"])
    expectError(.deviceFailed(errno: 5)) { try file.write([1], at: 0) }
    expectError(.deviceFailed(errno: 5)) { try file.truncate(to: 0) }
    #expect(try file.bytes(at: 0, count: 2000) == new)
  }
}
