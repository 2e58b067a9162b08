internal import Bytes

import Glibc
import SystemPackage

/// A file or block device that is open, known to be one, and locked: what a `FileDevice` starts from.
///
/// The order of the steps is what makes opening safe: nothing that could wait or act is opened, no byte is read before
/// the lock is held, and the lock is known to be on the file that the path names.
struct FileOpening {
  /// The open file; whoever has the opening closes it.
  var descriptor: FileDescriptor
  /// Whether the file is a block device rather than a regular file.
  var isBlockDevice: Bool
  /// The length of the file or block device in bytes.
  var byteCount: UInt64
  /// The units in which it works.
  var geometry: DeviceGeometry

  /// Opens and locks what `path` names.
  static func opening(_ path: FilePath, _ access: FileDevice.Access) throws(DeviceError) -> FileOpening {
    do {
      // A first look, because opening a character device can act on it. The look after the opening decides.
      let named = try FileStatus(at: path)
      try named.requireBytesAtOffsets()
      var options: FileDescriptor.OpenOptions = [.closeOnExec, .noFollow, .nonBlocking]
      // On a block device, O_EXCL asks Linux to refuse one that is mounted or otherwise claimed (open(2)).
      if named.kind == .blockDevice, access == .readWrite { options.insert(.exclusiveCreate) }
      let descriptor = try SystemCalls.open(path, access.mode, options: options)
      return try finishing(descriptor, path, access)
    } catch let error as DeviceError {
      throw error
    } catch let error as Errno {
      throw DeviceError(operation: error == .resourceBusy ? .lock : .open, errno: error.rawValue, path: path)
    } catch {
      throw DeviceError(operation: .open, errno: EIO, path: path)
    }
  }

  /// Makes a new, empty file that is to be called `path`, opens and locks it; where it is until it has that name.
  ///
  /// - Throws: `EEXIST` where `path` names something.
  static func creating(_ path: FilePath) throws(DeviceError) -> (opening: FileOpening, temporaryPath: FilePath) {
    // Whatever else is wrong with the path shows when the file is made.
    if (try? FileStatus(at: path)) != nil { throw DeviceError(operation: .open, errno: EEXIST, path: path) }
    while true {
      let temporary = temporaryPath(for: path)
      let descriptor: FileDescriptor
      do throws(Errno) {
        descriptor = try SystemCalls.open(
          temporary, .readWrite, options: [.create, .exclusiveCreate, .noFollow, .closeOnExec],
          permissions: [.ownerReadWrite])
      } catch .fileExists {
        continue
      } catch {
        throw DeviceError(operation: .open, errno: error.rawValue, path: path)
      }
      // Only while it is empty; and where it cannot be, the store is only slower and needs more room (`FileDevice.isCopiedOnWrite`).
      try? SystemCalls.disableCopyOnWrite(descriptor)
      do throws(DeviceError) {
        return (try finishing(descriptor, temporary, .readWrite), temporary)
      } catch {
        try? SystemCalls.unlink(temporary)
        throw error
      }
    }
  }

  /// A name beside `path`, `.NAME.xxxxxxxx.new`, that nothing is likely to have.
  private static func temporaryPath(for path: FilePath) -> FilePath {
    let name = path.lastComponent?.string ?? ""
    let digits = String(UInt32.random(in: 0x1000_0000 ... .max), radix: 16)
    // A long name would become too long.
    let kept = name.utf8.count <= 200 ? name : name.beginning(40)
    return path.removingLastComponent().appending(".\(kept).\(digits).new")
  }

  /// Checks what was opened and locks it; closes it where that fails.
  private static func finishing(
    _ descriptor: FileDescriptor, _ path: FilePath, _ access: FileDevice.Access
  ) throws(DeviceError) -> FileOpening {
    do throws(DeviceError) {
      return try checking(descriptor, path, access)
    } catch {
      try? descriptor.close()
      throw error
    }
  }

  private static func checking(
    _ descriptor: FileDescriptor, _ path: FilePath, _ access: FileDevice.Access
  ) throws(DeviceError) -> FileOpening {
    var operation = DeviceError.Operation.open
    do throws(Errno) {
      try FileStatus(of: descriptor).requireBytesAtOffsets()
      try SystemCalls.clearNonBlocking(descriptor)

      operation = .lock
      try SystemCalls.lock(descriptor, exclusive: access == .readWrite)

      // The kernel tells each error of writing back once: here, where the process before died without having heard of it.
      if access == .readWrite {
        do { try SystemCalls.syncData(descriptor) } catch { SystemCalls.forgetUnwritten(descriptor) }
      }

      // Only now is the length settled, since whoever held the lock may have changed it.
      operation = .open
      let status = try FileStatus(of: descriptor)
      guard status.isSameFile(as: try FileStatus(at: path)) else { throw Errno(rawValue: ESTALE) }
      let isBlockDevice = status.kind == .blockDevice
      return FileOpening(
        descriptor: descriptor, isBlockDevice: isBlockDevice,
        // Offsets are `Int64` to the system, so that no device is longer.
        byteCount: min(
          isBlockDevice ? try SystemCalls.blockDeviceByteCount(descriptor) : status.byteCount, UInt64(Int64.max)),
        geometry: isBlockDevice
          ? DeviceGeometry(
            sectorByteCount: try SystemCalls.sectorByteCount(descriptor),
            discardByteCount: SystemCalls.discardByteCount(ofDevice: status.ownDevice) ?? 4096)
          : DeviceGeometry())
    } catch {
      // fcntl(2) lets a system answer EACCES for a lock held elsewhere; callers get to see one number.
      let isHeldElsewhere = operation == .lock && error == .permissionDenied
      throw DeviceError(operation: operation, errno: isHeldElsewhere ? EAGAIN : error.rawValue, path: path)
    }
  }

  /// Makes the name of a new file durable by syncing the directory that holds it.
  static func syncDirectory(of path: FilePath) throws(Errno) {
    let parent = path.removingLastComponent()
    let directory = try SystemCalls.open(
      parent.isEmpty ? "." : parent, .readOnly, options: [.directory, .closeOnExec])
    defer { try? directory.close() }
    try SystemCalls.syncAll(directory)
  }
}

extension FileDevice.Access {
  fileprivate var mode: FileDescriptor.AccessMode {
    switch self {
    case .readOnly, .scratch: .readOnly
    case .readWrite: .readWrite
    }
  }
}
