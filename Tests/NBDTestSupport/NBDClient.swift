import CLibNBD
import Glibc

/// One connection to an NBD server, through libnbd.
///
/// libnbd's own checks of requests are off, so that it is the server that answers a wrong one. Not for use by two
/// threads at once. The calls here wait for the answer; `NBDClient+Async.swift` has those that do not, and
/// `NBDClient+Options.swift` those of option negotiation.
package final class NBDClient {
  /// The largest length that fits a request, one byte below 4 GiB.
  package static let requestBytesMax: UInt64 = 0xffff_ffff

  let handle: OpaquePointer
  var inFlight: [UInt64: NBDCommand] = [:]

  /// Connects to the export `exportName`.
  package convenience init(socketPath: String, exportName: String = "") throws(NBDError) {
    try self.init(socketPath: socketPath, exportName: exportName, stopsAtOptions: false)
  }

  init(socketPath: String, exportName: String, stopsAtOptions: Bool) throws(NBDError) {
    guard let handle = nbd_create() else { throw NBDError.last("nbd_create") }
    self.handle = handle
    try check(nbd_set_strict_mode(handle, 0), "nbd_set_strict_mode")
    try check(nbd_set_export_name(handle, exportName), "nbd_set_export_name")
    try check(nbd_set_full_info(handle, true), "nbd_set_full_info")
    try check(nbd_add_meta_context(handle, "base:allocation"), "nbd_add_meta_context")
    try check(nbd_set_opt_mode(handle, stopsAtOptions), "nbd_set_opt_mode")
    try check(nbd_connect_unix(handle, socketPath), "nbd_connect_unix")
  }

  deinit { nbd_close(handle) }

  /// Takes leave of the server politely. Ending the client's life hangs up without a word.
  package func disconnect() throws(NBDError) {
    try check(nbd_shutdown(handle, 0), "nbd_shutdown")
  }

  // MARK: What the server offers

  /// The export's size in bytes.
  package func size() throws(NBDError) -> UInt64 {
    let size = nbd_get_size(handle)
    guard size >= 0 else { throw NBDError.last("nbd_get_size") }
    return UInt64(size)
  }

  package func isReadOnly() throws(NBDError) -> Bool { try answer(nbd_is_read_only(handle), "is_read_only") }
  package func isRotational() throws(NBDError) -> Bool { try answer(nbd_is_rotational(handle), "is_rotational") }
  package func canFlush() throws(NBDError) -> Bool { try answer(nbd_can_flush(handle), "can_flush") }
  package func canFUA() throws(NBDError) -> Bool { try answer(nbd_can_fua(handle), "can_fua") }
  package func canTrim() throws(NBDError) -> Bool { try answer(nbd_can_trim(handle), "can_trim") }
  package func canZero() throws(NBDError) -> Bool { try answer(nbd_can_zero(handle), "can_zero") }
  package func canFastZero() throws(NBDError) -> Bool { try answer(nbd_can_fast_zero(handle), "can_fast_zero") }
  package func canCache() throws(NBDError) -> Bool { try answer(nbd_can_cache(handle), "can_cache") }
  package func canMultiConn() throws(NBDError) -> Bool { try answer(nbd_can_multi_conn(handle), "can_multi_conn") }
  package func canBlockStatus() throws(NBDError) -> Bool {
    try answer(nbd_can_meta_context(handle, "base:allocation"), "can_meta_context")
  }

  /// The sizes the server asks for.
  package func blockSizes() throws(NBDError) -> BlockSizes {
    func size(_ type: Int32) throws(NBDError) -> Int64 {
      let size = nbd_get_block_size(handle, type)
      guard size >= 0 else { throw NBDError.last("nbd_get_block_size") }
      return size
    }
    return BlockSizes(
      minimum: try size(LIBNBD_SIZE_MINIMUM), preferred: try size(LIBNBD_SIZE_PREFERRED),
      maximum: try size(LIBNBD_SIZE_MAXIMUM))
  }

  /// The name the server gives to the export that was asked for.
  package func canonicalExportName() throws(NBDError) -> String {
    try text(nbd_get_canonical_export_name(handle), "nbd_get_canonical_export_name")
  }

  /// The server's words for the export.
  package func exportDescription() throws(NBDError) -> String {
    try text(nbd_get_export_description(handle), "nbd_get_export_description")
  }

  // MARK: Requests

  /// Reads `byteCount` bytes at `offset`.
  package func read(_ byteCount: Int, at offset: UInt64) throws(NBDError) -> [UInt8] {
    // Filled with a pattern first, so that bytes the server never sent do not pass as zeroes.
    var bytes = [UInt8](repeating: 0xd7, count: byteCount)
    try check(nbd_pread(handle, &bytes, bytes.count, offset, 0), "nbd_pread")
    return bytes
  }

  package func write(_ bytes: [UInt8], at offset: UInt64, flags: CommandFlags = []) throws(NBDError) {
    try check(nbd_pwrite(handle, bytes, bytes.count, offset, flags.rawValue), "nbd_pwrite")
  }

  package func zero(_ byteCount: UInt64, at offset: UInt64, flags: CommandFlags = []) throws(NBDError) {
    try check(nbd_zero(handle, byteCount, offset, flags.rawValue), "nbd_zero")
  }

  package func trim(_ byteCount: UInt64, at offset: UInt64, flags: CommandFlags = []) throws(NBDError) {
    try check(nbd_trim(handle, byteCount, offset, flags.rawValue), "nbd_trim")
  }

  package func cache(_ byteCount: UInt64, at offset: UInt64) throws(NBDError) {
    try check(nbd_cache(handle, byteCount, offset, 0), "nbd_cache")
  }

  package func flush() throws(NBDError) {
    try check(nbd_flush(handle, 0), "nbd_flush")
  }

  /// One block status answer, as the server gave it.
  package func blockStatus(
    _ byteCount: UInt64, at offset: UInt64, flags: CommandFlags = []
  ) throws(NBDError) -> [AllocationExtent] {
    let collector = ExtentCollector(next: offset)
    let callback = nbd_extent_callback(
      callback: { userData, _, _, entries, count, _ in
        guard let userData, let entries else { return -1 }
        let collector = Unmanaged<ExtentCollector>.fromOpaque(userData).takeUnretainedValue()
        for index in stride(from: 0, to: count - 1, by: 2) {
          collector.add(byteCount: entries[index], state: entries[index + 1])
        }
        return 0
      }, user_data: Unmanaged.passUnretained(collector).toOpaque(), free: nil)
    let status = withExtendedLifetime(collector) {
      nbd_block_status(handle, byteCount, offset, callback, flags.rawValue)
    }
    try check(status, "nbd_block_status")
    return collector.extents
  }

  /// The state of every byte of `range`: as many block status requests as that takes, neighbours of one state merged,
  /// clipped to `range`.
  package func allocation(of range: Range<UInt64>) throws -> [AllocationExtent] {
    var extents: [AllocationExtent] = []
    var offset = range.lowerBound
    while offset < range.upperBound {
      let asked = min(range.upperBound - offset, NBDClient.requestBytesMax)
      let answer = try blockStatus(asked, at: offset)
      guard !answer.isEmpty && answer.allSatisfy({ $0.byteCount > 0 }) else {
        throw NBDError(
          operation: "block status", code: EPROTO, message: "no progress for \(asked) bytes at \(offset): \(answer)")
      }
      for var extent in answer where extent.offset < range.upperBound {
        extent.byteCount = min(extent.end, range.upperBound) - extent.offset
        if let last = extents.last, last.state == extent.state {
          extents[extents.count - 1].byteCount += extent.byteCount
        } else {
          extents.append(extent)
        }
        offset = extent.end
      }
    }
    return extents
  }

  // MARK: Errors

  func check(_ status: Int32, _ operation: String) throws(NBDError) {
    if status == -1 { throw NBDError.last(operation) }
  }

  private func answer(_ status: Int32, _ operation: String) throws(NBDError) -> Bool {
    try check(status, operation)
    return status != 0
  }

  private func text(_ pointer: UnsafeMutablePointer<CChar>?, _ operation: String) throws(NBDError) -> String {
    guard let pointer else { throw NBDError.last(operation) }
    defer { free(pointer) }
    return String(cString: pointer)
  }
}

/// Gathers the runs of one block status answer.
private final class ExtentCollector {
  private(set) var extents: [AllocationExtent] = []
  private var next: UInt64

  init(next: UInt64) { self.next = next }

  func add(byteCount: UInt32, state: UInt32) {
    extents.append(
      AllocationExtent(offset: next, byteCount: UInt64(byteCount), state: AllocationState(rawValue: state)))
    next += UInt64(byteCount)
  }
}
