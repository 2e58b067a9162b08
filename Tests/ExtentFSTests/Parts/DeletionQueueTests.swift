import Testing

@testable import ExtentFS

/// Deleted inodes wait for their turns, each once.
@Suite struct DeletionQueueTests {
  private func deletion(_ inode: UInt64, name: String? = nil, blocks: UInt64 = 10) -> Deletion {
    Deletion(inode: inode, name: name, mappedBlockCount: blocks)
  }

  @Test func `what the catalog had comes before what was deleted since, and nothing twice`() {
    let queue = DeletionQueue()
    queue.append([deletion(7, name: "the deleted volume 'a'")])
    #expect(!queue.isComplete)
    queue.complete(with: [deletion(3), deletion(7), deletion(5)])
    #expect(queue.isComplete)
    #expect(queue.waiting.map(\.inode) == [3, 5, 7])
    #expect(queue.waiting.last?.name == "the deleted volume 'a'")
  }

  @Test func `the catalog is looked at once`() {
    let queue = DeletionQueue()
    queue.complete(with: [deletion(3)])
    queue.remove(3)
    queue.complete(with: [deletion(3)])
    #expect(queue.isEmpty)
  }

  @Test func `a step leaves what still maps blocks, with their number, and its name`() {
    let queue = DeletionQueue()
    queue.append([deletion(1, name: "one"), deletion(2), deletion(3)])
    queue.didDrop([1: 4, 2: nil])
    #expect(queue.waiting.map(\.inode) == [1, 3])
    #expect(queue.waiting.map(\.mappedBlockCount) == [4, 10])
    #expect(queue.waiting.first?.name == "one")
  }

  @Test func `what is damaged gets no turn any more, and is not forgotten`() {
    let queue = DeletionQueue()
    queue.append([deletion(1), deletion(2)])
    queue.setAside(deletion(1), ExtentFSError(.damaged, "a node"))
    #expect(queue.waiting.map(\.inode) == [2])
    #expect(queue.all.map(\.inode) == [2, 1])
    #expect(queue.all.last?.damage?.facts == "a node")
    queue.remove(2)
    #expect(queue.isEmpty && queue.all.map(\.inode) == [1])
  }
}
