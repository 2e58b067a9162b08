package import Extents

/// What a merge of changes into a tree needs from its checkpoint, and what it tells it.
///
/// What is told holds only once the merge has returned. Where it throws, the old tree stays as it was: the caller
/// forgets what was told, and gives the allocated blocks back.
package protocol TreeWriter: AnyObject {
  /// The generation of the nodes written.
  var generation: UInt64 { get }

  /// A free block for a node.
  func allocateBlock() throws(ExtentFSError) -> UInt64

  /// Writes `node` to its block on the device, at the latest before the checkpoint's sync. The cache of the merge finds it from now
  /// on, there or on the device.
  func write(_ node: Node) throws(ExtentFSError)

  /// The tree gives up its reference to the node in `block`.
  func freeNode(_ block: UInt64) throws(ExtentFSError)

  /// The tree gives up its references to the blocks of `run`: no logical block is at them any more.
  func freeData(_ run: PhysicalRun) throws(ExtentFSError)

  /// Whether the node in `block` has more than one reference, so that it stays when this tree gives it up.
  func isShared(_ block: UInt64) throws(ExtentFSError) -> Bool

  /// Everything that `node` refers to (nodes or, in a leaf of extents, data) gets one more reference: `node` is shared and
  /// stays, and this tree is about to refer to the same from a node of its own. Comes before `released` of its block.
  func retainChildren(of node: Node) throws(ExtentFSError)
}

extension TreeWriter {
  /// False: without snapshots nothing is shared.
  package func isShared(_ block: UInt64) throws(ExtentFSError) -> Bool { false }
  /// Nothing: without snapshots nothing is shared.
  package func retainChildren(of node: Node) throws(ExtentFSError) {}
}
