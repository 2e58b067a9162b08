/// What a check of a store found, and whose its blocks are. All numbers are of blocks.
package struct StoreCheckReport: Sendable, Equatable {
  /// One inode's share of the store.
  package struct Account: Sendable, Equatable {
    package var inode: UInt64
    /// Empty for what is deleted, and for throwaways.
    package var name: String
    package var kind: InodeRecord.Kind
    package var isThrowaway: Bool
    /// Logical blocks with a physical one.
    package var mapped: UInt64 = 0
    /// Logical blocks of reserved zeroes.
    package var reserved: UInt64 = 0
    /// Blocks of data that nothing else leads to: what comes back when the inode alone is given up.
    package var exclusiveData: UInt64 = 0
    /// Nodes that nothing else leads to.
    package var exclusiveNodes: UInt64 = 0

    /// Blocks of data that other inodes lead to as well.
    package var shared: UInt64 { mapped - min(mapped, exclusiveData) }
  }

  /// The whole store's blocks: each stands in one of the five numbers.
  package struct Totals: Sendable, Equatable {
    /// Nodes of the trees of inodes, names, space and shared runs.
    package var catalogNodes: UInt64 = 0
    /// Data and nodes that one inode alone leads to: the sums over all accounts.
    package var exclusiveData: UInt64 = 0
    package var exclusiveNodes: UInt64 = 0
    /// Data and nodes that several inodes lead to, each block counted once.
    package var sharedData: UInt64 = 0
    package var sharedNodes: UInt64 = 0

    package var nodes: UInt64 { catalogNodes + exclusiveNodes + sharedNodes }
    package var data: UInt64 { exclusiveData + sharedData }
    package var used: UInt64 { nodes + data }
  }

  /// The generation of the superblock whose trees were walked.
  package var generation: UInt64 = 0
  /// What is wrong, each with the path to it; empty where nothing is.
  package var findings: [Finding] = []
  /// What is not wrong, and should be known.
  package var notes: [String] = []
  /// By inode, in order.
  package var accounts: [Account] = []
  package var totals = Totals()
  /// Blocks whose data was held against its checksum.
  package var verifiedBlockCount: UInt64 = 0
  /// Blocks that a store in use gave up before their data was read.
  package var skippedBlockCount: UInt64 = 0

  /// Where a finding is noted, until there are so many that more say nothing.
  static var findingCountMax: Int { 10_000 }

  mutating func note(_ finding: Finding) {
    if findings.count < Self.findingCountMax { findings.append(finding) }
    if findings.count == Self.findingCountMax {
      findings.append(Finding(.more, "", "there is more; the check says no more of it"))
    }
  }

  /// Keeps a finding.
  ///
  /// - Parameter path: what it is about; empty for the store as a whole.
  mutating func note(_ kind: Finding.Kind, _ path: String, _ text: String) { note(Finding(kind, path, text)) }
}
