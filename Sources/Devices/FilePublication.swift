import Atomics
import Bytes
import SystemPackage

/// What a file or block device is until all of it is there: a file under a name that it is not to keep, or a block device whose first
/// bytes are in memory. So what is made is there whole, or not at all, whatever happens meanwhile.
///
/// Thread safety: any thread may call it.
final class FilePublication: Sendable {
  /// The name of a file that has not got its own yet.
  private let temporaryPath: Locked<FilePath?>
  private let isPublished: ManagedAtomic<Bool>
  /// The first bytes of a block device, which are held back from it.
  private let heldBytes = HeldBytes()

  /// - Parameter temporaryPath: the name of a new file; nil for what is there already.
  init(temporaryPath: FilePath?) {
    self.temporaryPath = Locked(rank: .fileDevice, temporaryPath)
    isPublished = ManagedAtomic(temporaryPath == nil)
  }

  /// Whether everything that is written goes to its place.
  @inline(__always)
  var isDone: Bool { isPublished.load(ordering: .acquiring) }

  // MARK: Block devices

  /// Holds the first `byteCount` bytes, all zero, from now on.
  func hold(_ byteCount: Int) {
    heldBytes.hold(byteCount)
    isPublished.store(false, ordering: .releasing)
  }

  /// Holds none any more; returns what they were.
  func release() -> [UInt8] {
    defer { isPublished.store(true, ordering: .releasing) }
    return heldBytes.release()
  }

  /// Fills the front of `buffer` with what is held from `offset` on; returns how many bytes that is.
  @inline(__always)
  func read(into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) -> Int {
    isDone ? 0 : unsafe heldBytes.read(into: buffer, at: offset)
  }

  /// Holds the front of `buffer` as what is at `offset`; returns how many bytes that is.
  @inline(__always)
  func write(_ buffer: UnsafeRawBufferPointer, at offset: UInt64) -> Int {
    isDone ? 0 : unsafe heldBytes.write(buffer, at: offset)
  }

  // MARK: Files

  /// Makes the file durable, then gives it the name `path`, then makes that durable.
  ///
  /// - Throws: as `FileDevice.publish`. The file is gone then.
  func giveName(_ path: FilePath, to descriptor: FileDescriptor) throws(DeviceError) {
    func failure(_ operation: DeviceError.Operation, _ error: Errno) -> DeviceError {
      DeviceError(operation: operation, errno: error.rawValue, path: path)
    }
    try temporaryPath.withLock { temporary throws(DeviceError) in
      guard let old = temporary else { return }
      temporary = nil
      do throws(Errno) {
        try SystemCalls.syncAll(descriptor)
      } catch {
        try? SystemCalls.unlink(old)
        throw failure(.sync, error)
      }
      do throws(Errno) {
        try SystemCalls.rename(old, to: path)
      } catch {
        try? SystemCalls.unlink(old)
        throw failure(.open, error)
      }
      do throws(Errno) {
        try FileOpening.syncDirectory(of: path)
      } catch {
        try? SystemCalls.unlink(path)
        throw failure(.sync, error)
      }
      isPublished.store(true, ordering: .releasing)
    }
  }

  /// Removes a file that has not got its name. Does nothing to any other.
  func abandon() {
    temporaryPath.withLock { temporary in
      if let old = temporary.take() { try? SystemCalls.unlink(old) }
    }
  }
}
