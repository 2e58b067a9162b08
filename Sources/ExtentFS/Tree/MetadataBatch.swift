internal import Bytes
internal import Devices

/// Metadata that a checkpoint has made and that is not on the device yet, so that it gets there in few calls: nodes, bitmaps and
/// checksum blocks.
///
/// It holds at most `byteCountMax` bytes, and then writes them by itself. What is left is written by `flush`, before the sync that
/// is to cover it. Nodes are found in the node cache meanwhile.
///
/// One thread uses it.
@safe package final class MetadataBatch {
  /// How much is collected before it is written: enough to make calls rare, little beside the caches.
  package static var byteCountMax: Int { 1 << 20 }

  private let nodes: NodeCache
  private let byteCountMax: Int
  /// What is to be written. The memory is that of `heldNodes` and `heldBlocks`.
  private var pieces: [DeviceWrite] = unsafe []
  private var byteCount = 0
  private var heldNodes: [Node] = []
  private var heldBlocks: [UInt64: UnsafeMutableRawBufferPointer] = unsafe [:]

  /// A batch for the device of `nodes`.
  package init(_ nodes: NodeCache, byteCountMax: Int = MetadataBatch.byteCountMax) {
    self.nodes = nodes
    self.byteCountMax = byteCountMax
  }

  deinit { forget() }

  /// Adds a node. From now on the cache has it.
  ///
  /// - Throws: as `flush`, where the batch is full.
  package func add(_ node: Node) throws(ExtentFSError) {
    nodes.beginWriting(node)
    heldNodes.append(node)
    // Safe: the node has its bytes as long as it lives, and it is held until they are written.
    try unsafe add(node.bytesWhileHeld, at: node.pointer.block)
  }

  /// Adds a block that `fill` makes, and returns its ``MetadataChecksum``. One that was added before is written first.
  ///
  /// - Throws: as `flush`, where the batch is full.
  func addBlock(
    _ block: UInt64, _ fill: (UnsafeMutableRawBufferPointer) -> Void
  ) throws(ExtentFSError) -> UInt32 {
    let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: nodes.blockSize.byteCount, alignment: 64)
    unsafe fill(buffer)
    // What is in one batch must not overlap.
    if unsafe heldBlocks[block] != nil { try flush() }
    unsafe heldBlocks[block] = buffer
    // Safe: the buffer lives until it is written.
    let bytes = UnsafeRawBufferPointer(buffer)
    let checksum = unsafe MetadataChecksum.checksum(bytes, block: block)
    try unsafe add(bytes, at: block)
    return checksum
  }

  private func add(_ bytes: UnsafeRawBufferPointer, at block: UInt64) throws(ExtentFSError) {
    unsafe pieces.append(DeviceWrite(bytes, at: nodes.blockSize.offset(of: block)))
    byteCount += bytes.count
    if byteCount >= byteCountMax { try flush() }
  }

  /// Hands all that was added to the device. A sync that begins afterwards covers it.
  ///
  /// - Throws: `.device` where the device fails. Any of it may have been written then, and none of it is held any more.
  package func flush() throws(ExtentFSError) {
    defer { forget() }
    guard unsafe !pieces.isEmpty else { return }
    do throws(DeviceError) {
      try unsafe nodes.device.write(pieces)
    } catch {
      throw ExtentFSError(error)
    }
    for node in heldNodes { nodes.insert(node) }
  }

  /// Holds nothing any more.
  package func forget() {
    nodes.endWriting(heldNodes)
    heldNodes = []
    unsafe pieces = []
    unsafe heldBlocks.values.forEach { unsafe $0.deallocate() }
    unsafe heldBlocks = [:]
    byteCount = 0
  }
}
