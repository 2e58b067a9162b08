/// One node of a tree, verified and immutable.
///
/// Its bytes are laid out as ``NodeHeader`` says. Whoever holds a node knows that:
/// 1. it is the block that its pointer means: checksum, block number and generation agree;
/// 2. it has at least one entry and no more than fit;
/// 3. its keys rise strictly;
/// 4. in a leaf of extents, each is one (see ``ExtentRecord``), and they do not overlap.
@safe package final class Node: @unchecked Sendable {
  // Sendable because all is immutable, the bytes too, from the end of `init` on.

  /// What refers to the node.
  package let pointer: BlockPointer
  /// The kind of the tree.
  package let kind: NodeKind
  /// The level: 0 in leaves.
  package let level: Int
  /// The number of entries; at least 1.
  package let count: Int
  /// In a tree of extents the inode that the node was written for, of perhaps many that share it. Else 0.
  package let owner: UInt64
  private let bytes: UnsafeMutableRawBufferPointer
  private let entryByteCount: Int

  /// Takes ownership of `bytes`, which came from `allocateBytes` and hold what the arguments say.
  private init(takingOwnershipOf bytes: UnsafeMutableRawBufferPointer, _ header: NodeHeader, checksum: UInt32) {
    unsafe self.bytes = bytes
    pointer = BlockPointer(block: header.block, generation: header.generation, checksum: checksum)
    kind = header.kind
    level = header.level
    count = header.count
    owner = header.owner
    entryByteCount = NodeLayout(kind, level: level, blockByteCount: bytes.count).entryByteCount
  }

  deinit { unsafe bytes.deallocate() }

  /// Memory for a node, aligned for whole integers.
  static func allocateBytes(_ byteCount: Int) -> UnsafeMutableRawBufferPointer {
    .allocate(byteCount: byteCount, alignment: 16)
  }

  /// Verifies the block in `bytes`, which came from `allocateBytes` and belong to the node from now on, or are
  /// given back where it throws.
  ///
  /// - Throws: `ExtentFSError` with `damaged` for whatever is not the node that the arguments describe.
  static func decode(
    takingOwnershipOf bytes: UnsafeMutableRawBufferPointer, pointer: BlockPointer, kind: NodeKind, level: Int,
    owner: UInt64
  ) throws(ExtentFSError) -> Node {
    var isTaken = false
    defer { if !isTaken { unsafe bytes.deallocate() } }
    func damaged(_ what: String) -> ExtentFSError {
      ExtentFSError(.damaged, "block \(pointer.block), a node of kind \(kind) and level \(level): \(what)")
    }
    let checksum = unsafe MetadataChecksum.checksum(UnsafeRawBufferPointer(bytes), block: pointer.block)
    guard checksum == pointer.checksum else {
      throw damaged("its checksum is \(checksum) and should be \(pointer.checksum)")
    }
    guard let header = unsafe NodeHeader(decoding: bytes.bytes) else { throw damaged("it has no valid node header") }
    guard header.kind == kind, header.level == level else {
      throw damaged("it is of kind \(header.kind) and level \(header.level)")
    }
    guard header.block == pointer.block else { throw damaged("it belongs to block \(header.block)") }
    guard header.generation == pointer.generation else {
      throw damaged("its generation is \(header.generation) and should be \(pointer.generation)")
    }
    // Who shares a node of extents is not who wrote it.
    guard kind == .extents || header.owner == owner else {
      throw damaged("its owner is \(header.owner) and should be \(owner)")
    }
    let capacity = NodeLayout(kind, level: level, blockByteCount: bytes.count).capacity
    guard header.count >= 1, header.count <= capacity else {
      throw damaged("it has \(header.count) entries and room for \(capacity)")
    }
    let node = unsafe Node(takingOwnershipOf: bytes, header, checksum: checksum)
    isTaken = true
    guard node.hasRisingKeys else { throw damaged("its keys do not rise") }
    guard kind != .extents || level > 0 || node.hasValidExtents else { throw damaged("it has invalid extents") }
    return node
  }

  /// Makes a node of the given entries, which are in order and fit, and computes its checksum.
  static func make(
    _ kind: NodeKind, level: Int, owner: UInt64, block: UInt64, generation: UInt64, blockByteCount: Int, count: Int,
    entries: UnsafeRawBufferPointer
  ) -> Node {
    let bytes = unsafe allocateBytes(blockByteCount)
    let header = NodeHeader(
      kind: kind, level: level, count: count, block: block, generation: generation, owner: owner)
    var span = unsafe bytes.mutableBytes
    header.encode(into: &span)
    let end = NodeHeader.encodedByteCount + entries.count
    // Safe: the entries fit, as the caller promises and `rebasing` checks.
    unsafe UnsafeMutableRawBufferPointer(rebasing: bytes[NodeHeader.encodedByteCount..<end]).copyMemory(from: entries)
    let rest = unsafe UnsafeMutableRawBufferPointer(rebasing: bytes[end...])
    if let start = rest.baseAddress { unsafe start.initializeMemory(as: UInt8.self, repeating: 0, count: rest.count) }
    let checksum = unsafe MetadataChecksum.checksum(UnsafeRawBufferPointer(bytes), block: block)
    return unsafe Node(takingOwnershipOf: bytes, header, checksum: checksum)
  }

  private var hasRisingKeys: Bool {
    var previous = key(at: 0)
    for index in 1..<max(count, 1) {
      let key = key(at: index)
      if key <= previous { return false }
      previous = key
    }
    return true
  }

  private var hasValidExtents: Bool {
    var end: UInt64 = 0
    for index in 0..<count {
      // Safe: the node lives.
      guard let extent = unsafe ExtentRecord(decoding: bytes.bytes, at: offset(of: index)), extent.logical >= end
      else { return false }
      end = extent.blocks.upperBound
    }
    return true
  }

  /// Where entry `index` begins; a wrong index is a mistake of the caller.
  @inline(__always)
  private func offset(of index: Int) -> Int {
    precondition(index >= 0 && index < count, "a node has no such entry")
    return NodeHeader.encodedByteCount + index * entryByteCount
  }

  @inline(__always)
  private func load<Value: FixedWidthInteger & BitwiseCopyable>(_ type: Value.Type, at offset: Int) -> Value {
    // Safe: offsets lie inside an entry, and entries inside the bytes; every bit pattern is an integer.
    Value(littleEndian: unsafe UnsafeRawBufferPointer(bytes).loadUnaligned(fromByteOffset: offset, as: type))
  }

  /// The key of entry `index`.
  package func key(at index: Int) -> UInt64 { load(UInt64.self, at: offset(of: index)) }

  /// The index of the last entry whose key is not above `key`; nil where all are. O(log n).
  package func index(atOrBefore key: UInt64) -> Int? {
    var low = 0
    var high = count
    while low < high {
      let middle = (low + high) / 2
      if self.key(at: middle) > key { high = middle } else { low = middle + 1 }
    }
    return low == 0 ? nil : low - 1
  }

  /// What entry `index` of an inner node refers to.
  package func child(at index: Int) -> BlockPointer {
    precondition(level > 0, "a leaf has no children")
    // Safe: the node lives.
    return unsafe BlockPointer(decoding: bytes.bytes, at: offset(of: index) + 8)
  }

  /// Entry `index` of a leaf of extents.
  package func extent(at index: Int) -> ExtentRecord {
    precondition(kind == .extents && level == 0, "a node of another kind has no extents")
    let offset = offset(of: index)
    let physical = load(UInt64.self, at: offset + 8)
    // The physical block 0 is that of reserved zeroes alone: invariant 4.
    return ExtentRecord(
      logical: load(UInt64.self, at: offset), length: load(UInt32.self, at: offset + 16),
      target: physical == 0 ? .unwritten : .physical(physical))
  }

  /// Calls `body` with the value of entry `index`: in a leaf, `kind.valueByteCount` bytes.
  package func withValue<Result, Failure: Error>(
    at index: Int, _ body: (RawSpan) throws(Failure) -> Result
  ) throws(Failure) -> Result {
    let offset = offset(of: index)
    // Safe: the node lives during the call, and entries lie inside the bytes.
    let value = unsafe UnsafeRawBufferPointer(rebasing: bytes[offset + 8..<offset + entryByteCount])
    return try body(unsafe value.bytes)
  }

  /// Calls `body` with all bytes of the node, as they are on the device.
  package func withBytes<Result, Failure: Error>(
    _ body: (UnsafeRawBufferPointer) throws(Failure) -> Result
  ) throws(Failure) -> Result {
    // Safe: the node lives during the call.
    try unsafe body(UnsafeRawBufferPointer(bytes))
  }

  /// The node's bytes; for a caller that holds the node for as long as it uses them.
  var bytesWhileHeld: UnsafeRawBufferPointer { unsafe UnsafeRawBufferPointer(bytes) }

  /// Calls `body` with the bytes of all entries.
  func withEntries<Result, Failure: Error>(
    _ body: (UnsafeRawBufferPointer) throws(Failure) -> Result
  ) throws(Failure) -> Result {
    let end = NodeHeader.encodedByteCount + count * entryByteCount
    // Safe: as in `withBytes`; the entries lie inside the bytes.
    return try unsafe body(UnsafeRawBufferPointer(rebasing: bytes[NodeHeader.encodedByteCount..<end]))
  }
}
