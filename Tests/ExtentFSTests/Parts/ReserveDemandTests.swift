import Bytes
import Testing

@testable import ExtentFS

/// How many blocks are kept for checkpoints, as numbers.
@Suite struct ReserveDemandTests {
  private func demand(_ change: (inout ReserveDemand) -> Void = { _ in }) throws -> ReserveDemand {
    var demand = ReserveDemand(
      blockSize: try #require(BlockSize(byteCount: 4096)), volumeCount: 0, isSharing: false, unwrittenCloneCount: 0,
      groupCount: 0)
    change(&demand)
    return demand
  }

  @Test func `an empty store keeps what the catalog and one space node may take`() throws {
    // Three times two nodes of growth and one of the space tree, and the fixed 32.
    #expect(try demand().blockCount(forEdits: 0, nodeCount: 0) == 3 * (2 + 1) + 32)
  }

  @Test func `each node counts three times, and each open volume four blocks`() throws {
    let empty = try demand().blockCount(forEdits: 0, nodeCount: 0)
    #expect(try demand().blockCount(forEdits: 0, nodeCount: 1000) == empty + 3000)
    #expect(try demand { $0.volumeCount = 5 }.blockCount(forEdits: 0, nodeCount: 0) == empty + 20)
  }

  @Test func `changes need a node for each half of a leaf that they fill, three times`() throws {
    let perLeaf = UInt64(NodeLayout(.extents, level: 0, blockByteCount: 4096).capacity)
    let empty = try demand().blockCount(forEdits: 0, nodeCount: 0)
    let edits = 8 * perLeaf
    #expect(try demand().blockCount(forEdits: edits, nodeCount: 0) == empty + 3 * (16 + 1))
  }

  @Test func `sharing, clones and groups never make it smaller, and more of anything neither`() throws {
    for edits in [0, 1, 128, 100_000] as [UInt64] {
      for nodes in [0, 1, 500, 1 << 30] as [UInt64] {
        let plain = try demand { $0.volumeCount = 2 }.blockCount(forEdits: edits, nodeCount: nodes)
        let changes: [(inout ReserveDemand) -> Void] = [
          { $0.isSharing = true }, { $0.unwrittenCloneCount = 1000 }, { $0.groupCount = 1 << 20 },
          { $0.volumeCount = 3 },
        ]
        for change in changes {
          let more = try demand {
            $0.volumeCount = 2
            change(&$0)
          }
          #expect(more.blockCount(forEdits: edits, nodeCount: nodes) >= plain)
        }
        #expect(
          try demand().blockCount(forEdits: edits + 1000, nodeCount: nodes)
            >= demand().blockCount(forEdits: edits, nodeCount: nodes))
      }
    }
  }

  @Test func `where blocks are shared, a change may write one way down the tree twice`() throws {
    let shared = try demand {
      $0.isSharing = true
      $0.volumeCount = 100
    }
    let plain = try demand { $0.volumeCount = 100 }
    let difference = shared.blockCount(forEdits: 10, nodeCount: 50) - plain.blockCount(forEdits: 10, nodeCount: 50)
    // 2 · 4 nodes a change, and three nodes of the refcount tree for each node; all of it three times.
    #expect(difference == 3 * (80 + 150))
  }
}
