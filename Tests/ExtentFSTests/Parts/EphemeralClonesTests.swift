import Extents
import Testing

@testable import ExtentFS

/// What there is of ephemeral clones outside the catalog.
@Suite struct EphemeralClonesTests {
  private let record = InodeRecord(kind: .volume, name: "", byteCount: 4096, createdSeconds: 0)

  @Test func `one that goes before a checkpoint leaves its blocks, and no record`() {
    let clones = EphemeralClones()
    clones.add(record, of: 9)
    #expect(clones.record(of: 9) != nil && clones.unwrittenCount == 1)
    #expect(clones.remove(9, freeing: [PhysicalRun(block: 5, count: 2)]))
    #expect(clones.record(of: 9) == nil && clones.unwrittenCount == 0)
    #expect(clones.pendingFree == [PhysicalRun(block: 5, count: 2)])
  }

  @Test func `one that a checkpoint has written has to be deleted`() {
    let clones = EphemeralClones()
    clones.add(record, of: 9)
    clones.didCheckpoint()
    #expect(clones.unwritten.isEmpty)
    #expect(!clones.remove(9, freeing: [PhysicalRun(block: 7, count: 1)]))
    #expect(clones.pendingFree == [PhysicalRun(block: 7, count: 1)])
    clones.didCheckpoint()
    #expect(clones.pendingFree.isEmpty)
  }
}
