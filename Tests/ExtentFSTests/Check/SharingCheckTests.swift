import Devices
import Extents
import LacunaTestSupport
import Testing

@testable import ExtentFS

/// The check of stores whose volumes share blocks.
@Suite struct SharingCheckTests {
  @Test func `a store with snapshots and clones is sound, and its accounts are those of a count block by block`() throws
  {
    let (forge, disk, snapshot, clone) = try StoreForge.sample()
    try forge.finish()
    let report = try StoreCheck.run(on: forge.device)
    #expect(report.findings == [])
    try compareAccounts(report, forge)
    let accounts = Dictionary(uniqueKeysWithValues: report.accounts.map { ($0.inode, $0) })
    #expect(accounts[disk]?.exclusiveData == 5)
    // The clone has all of it.
    #expect(accounts[snapshot]?.exclusiveData == 0)
    #expect(accounts[clone]?.exclusiveData == 51)
    #expect(accounts[snapshot]?.mapped == 300)
    #expect(accounts[snapshot]?.reserved == 50)
    #expect(report.verifiedBlockCount == report.totals.data)
  }

  @Test(.slow) func `random volumes that share are sound, and their accounts right`() throws {
    try withSeededGenerator { generator in
      for _ in 0..<6 {
        let forge = try StoreForge(groupCount: 4)
        var alive = [forge.make("v0", blockCount: 2000)]
        for step in 1..<60 {
          let inode = alive[generator.number(below: alive.count)]
          switch generator.number(below: 6) {
          case 0 where alive.count < 12:
            alive.append(try forge.clone(inode, generator.oneIn(2) ? "v\(step)" : "v@\(step)"))
            if let last = alive.last, forge.inodes[last]?.name.contains("@") == true {
              forge.inodes[last]?.kind = .snapshot
            }
          case 1 where alive.count > 1:
            alive.removeAll { $0 == inode }
            try forge.remove(inode)
          default:
            try forge.merge(try Self.randomEdits(forge, &generator), into: inode)
          }
        }
        if let last = alive.last {
          forge.change(last) { ($0.kind, $0.name) = (.deleted, "") }
        }
        try forge.finish()
        let report = try StoreCheck.run(on: forge.device)
        try check(report.findings == [], "\(report.findings)")
        try compareAccounts(report, forge)
      }
    }
  }

  private static func randomEdits(_ forge: StoreForge, _ generator: inout SeededGenerator) throws -> [ExtentEdit] {
    var edits: [ExtentEdit] = []
    var start: UInt64 = generator.number(below: 400)
    while start < 1980, edits.count < 40 {
      let end = start + 1 + generator.number(below: 6)
      switch generator.number(below: 6) {
      case 0: edits.append(ExtentEdit(start..<end, nil))
      case 1: edits.append(ExtentEdit(start..<end, .unwritten))
      default: edits.append(try forge.data(start..<end))
      }
      start = end + generator.number(below: 60)
    }
    return edits
  }

  /// Holds the accounts against the sets of blocks that each inode leads to.
  private func compareAccounts(_ report: StoreCheckReport, _ forge: StoreForge) throws {
    var reached: [UInt64: (data: Set<UInt64>, nodes: Set<UInt64>)] = [:]
    for (inode, record) in forge.inodes {
      var (data, nodes): (Set<UInt64>, Set<UInt64>) = ([], [])
      func add(_ extent: ExtentRecord) {
        if let block = extent.target.physicalBlock { data.formUnion(block..<block + UInt64(extent.length)) }
      }
      func walk(_ pointer: BlockPointer, _ level: Int) throws {
        nodes.insert(pointer.block)
        let node = try forge.cache.node(pointer, kind: .extents, level: level, owner: 0)
        for index in 0..<node.count {
          if level > 0 { try walk(node.child(at: index), level - 1) } else { add(node.extent(at: index)) }
        }
      }
      record.inlineExtents.forEach(add)
      if !record.extents.isEmpty { try walk(record.extents.pointer, record.extents.height - 1) }
      reached[inode] = (data, nodes)
    }
    var leading: [UInt64: Int] = [:]
    for (data, nodes) in reached.values { for block in data.union(nodes) { leading[block, default: 0] += 1 } }
    try check(report.accounts.map(\.inode) == forge.inodes.keys.sorted(), "not all inodes have an account")
    for account in report.accounts {
      guard let (data, nodes) = reached[account.inode] else { continue }
      let (wanted, wantedNodes) = (data.count { leading[$0] == 1 }, nodes.count { leading[$0] == 1 })
      try check(account.exclusiveData == UInt64(wanted), "\(account), data should be \(wanted)")
      try check(account.exclusiveNodes == UInt64(wantedNodes), "\(account), nodes should be \(wantedNodes)")
      try check(account.mapped == UInt64(data.count), "\(account), mapped should be \(data.count)")
      try check(account.shared == UInt64(data.count - wanted), "\(account)")
    }
    let all = reached.values.reduce(into: Set<UInt64>()) { $0.formUnion($1.data) }
    try check(report.totals.data == UInt64(all.count), "\(report.totals)")
    try check(report.totals.used == UInt64(forge.references.count), "\(report.totals)")
  }

  /// What is made wrong of a sample, and what must be said.
  struct Damage: Sendable, CustomTestStringConvertible {
    var kind: Finding.Kind
    var finding: String
    var change: @Sendable (StoreForge, _ disk: UInt64, _ clone: UInt64) throws -> Void
    var testDescription: String { finding }

    init(
      _ kind: Finding.Kind, _ finding: String, _ change: @escaping @Sendable (StoreForge, UInt64, UInt64) throws -> Void
    ) {
      (self.kind, self.finding) = (kind, finding)
      self.change = change
    }
  }

  static let damages = [
    Damage(.references, "2 references were found, and the refcount tree says 1: volume 'disk' (inode 1)") {
      forge, _, _ in
      forge.changesTable = { $0.removeFirst() }
    },
    Damage(.references, "2 references were found, and the refcount tree says 3") { forge, _, _ in
      forge.changesTable = { $0[0].value = encoded(16) { SharedRecord(length: 1, count: 3).encode(into: &$0, at: 0) } }
    },
    Damage(.references, "0 references were found, and the refcount tree says 2") { forge, _, _ in
      forge.changesTable = {
        $0.append(
          KeyedEdit(key: 1 << 40, value: encoded(16) { SharedRecord(length: 5, count: 2).encode(into: &$0, at: 0) }))
      }
    },
    Damage(.references, "begins before the one before it ends") { forge, _, _ in
      forge.changesTable = {
        $0[0].value = encoded(16) { SharedRecord(length: 9000, count: 2).encode(into: &$0, at: 0) }
      }
    },
    Damage(.bitmap, "is marked as used, and nothing references it, and so are 2 others") { forge, _, _ in
      forge.changesBitmap = { bitmap, group in if group == 1 { bitmap.insert(8000..<8003) } }
    },
    Damage(.number, "the accounts add up to") { forge, _, _ in
      forge.changesBitmap = { bitmap, group in if group == 1 { bitmap.insert(8000..<8003) } }
    },
    Damage(.bitmap, "is marked as free, and something references it") { forge, _, _ in
      forge.changesBitmap = { bitmap, group in if group == 0 { bitmap.remove(66..<67) } }
    },
    Damage(.number, "nodes, and the trees have") { forge, _, _ in forge.changesSuperblock = { $0.nodeBlockCount -= 1 }
    },
    Damage(.number, "transient inodes, and there are 0") { forge, _, _ in
      forge.changesSuperblock = { $0.transientCount += 1 }
    },
    Damage(.number, "reserved blocks, and the volumes reserve 102") { forge, _, _ in
      forge.changesSuperblock = { $0.reservedBlockCount += 1 }
    },
    Damage(.feature, "lacks the feature for it") { forge, _, _ in
      forge.changesSuperblock = { $0.incompatibleFeatures = 0 }
    },
    Damage(.feature, "snapshot 'disk@monday' (inode 2): needs a feature that the store lacks") {
      forge, _, _ in
      forge.changesSuperblock = { $0.incompatibleFeatures = 0 }
    },
    Damage(.name, "is a snapshot, and its name is not that of one") { forge, disk, _ in
      forge.inodes[disk]?.kind = .snapshot
    },
    Damage(.name, "is a snapshot, and its name is not that of one") { forge, disk, _ in
      forge.change(disk) { ($0.kind, $0.name) = (.snapshot, "a@b@c") }
    },
    Damage(.name, "is a volume, and its name is that of a snapshot") { forge, disk, _ in
      forge.inodes[disk]?.name = "a@b"
    },
    Damage(.name, "has an empty name") { forge, disk, _ in forge.inodes[disk]?.name = "" },
    Damage(.name, "deleted inode 1: a name references it") { forge, disk, _ in
      forge.extraNames = [NameHash.key(of: ""): disk]
      forge.change(disk) { ($0.kind, $0.name) = (.deleted, "") }
    },
    Damage(.number, "default inode 1 is not there") { forge, disk, _ in
      forge.superblock.defaultInode = disk
      forge.change(disk) { ($0.kind, $0.name) = (.deleted, "") }
    },
    Damage(.references, "with another pointer than the others that share it") { forge, disk, clone in
      let other = try forge.clone(clone, "other")
      forge.inodes[other]?.extents.pointer.checksum ^= 1
    },
    Damage(.references, "as node, and something else references it as something else") { forge, disk, clone in
      // As many places as the table says, but one of them takes a node for data.
      guard let node = forge.inodes[clone]?.extents.pointer.block else { return }
      forge.references[node]? += 1
      try forge.merge([ExtentEdit(990..<991, .physical(node))], into: disk)
    },
    Damage(.extent, "which is not a block for data or nodes") { forge, disk, _ in
      try forge.merge([ExtentEdit(990..<991, .physical(195))], into: disk)
    },
    Damage(.extent, "in group 2, which has no bitmap") { forge, disk, _ in
      try forge.merge([ExtentEdit(990..<991, .physical(192 + 2 * 8192 + 100))], into: disk)
    },
    Damage(.extent, "passes the end, block 500, and ends at") { forge, disk, _ in
      forge.inodes[disk]?.byteCount = 500 * 1024
    },
    Damage(.number, "mapped and 50 unwritten blocks, and has") { forge, disk, _ in forge.inodes[disk]?.mappedBlocks += 1
    },
  ]

  @Test(arguments: damages) func `what is wrong with what volumes share is named`(_ damage: Damage) throws {
    let (forge, disk, _, clone) = try StoreForge.sample()
    try damage.change(forge, disk, clone)
    try forge.finish()
    let findings = try StoreCheck.findings(on: forge.device)
    #expect(findings.contains { $0.kind == damage.kind && $0.description.contains(damage.finding) }, "\(findings)")
  }

  @Test func `a promise and a throwaway are counted`() throws {
    let (forge, disk, _, clone) = try StoreForge.sample()
    forge.change(disk) { ($0.reservationBlocks, $0.quotaBlocks) = (400, 296) }
    forge.change(clone) { ($0.isThrowaway, $0.name) = (true, "") }
    try forge.finish()
    #expect(try StoreCheck.findings(on: forge.device) == [])
    #expect(forge.superblock.transientCount == 1)
    #expect(forge.superblock.reservedBlockCount == 50 + 104 + 2)
  }

  @Test func `a damaged block of data is named with all that lead to it`() throws {
    let (forge, _, _, _) = try StoreForge.sample()
    try forge.finish()
    let block: UInt64 = 192 + 66
    try [UInt8](repeating: 1, count: 9).withUnsafeBytes { try forge.device.write($0, at: block * 1024 + 5) }
    let findings = try StoreCheck.findings(on: forge.device)
    #expect(findings.count == 1)
    let finding = try #require(findings.first)
    #expect(finding.kind == .data && finding.block == block)
    #expect(finding.path.contains("volume 'disk' (inode 1) > block "))
    #expect(finding.path.contains(", logical block 0"))
    #expect(finding.text.contains("block \(block) has the checksum "))
    #expect(try StoreCheck.findings(on: forge.device, readsData: false) == [])
  }

  @Test func `progress rises to the number of used blocks, and can end the check`() throws {
    let (forge, disk, _, _) = try StoreForge.sample()
    for index in 0..<3 as Range<UInt64> {
      try forge.merge([try forge.data(index * 2000 + 2000..<index * 2000 + 4000)], into: disk)
    }
    forge.inodes[disk]?.byteCount = 1 << 40
    try forge.finish()
    for readsData in [true, false] {
      var told: [UInt64] = []
      _ = try StoreCheck.run(on: forge.device, readsData: readsData) { done, all in
        told.append(done)
        #expect(all == forge.superblock.usedBlockCount)
      }
      #expect(told == told.sorted() && told.last == forge.superblock.usedBlockCount && told.count > 1)
    }
    #expect(throws: ExtentFSError.self) {
      try StoreCheck.run(on: forge.device) { _, _ throws(ExtentFSError) in throw ExtentFSError(.failed, "stopped") }
    }
  }
}
