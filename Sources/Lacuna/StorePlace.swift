internal import Devices
internal import ExtentFS
internal import Glibc
internal import SystemPackage

/// What is at a path that names a store, or is to; and where the sockets of its server are.
package enum StorePlace: Sendable, Hashable {
  case nothing
  /// A file, or what is neither a file nor a block device.
  case file
  case blockDevice(hasStore: Bool)

  /// Looks at `path`, whose symbolic links are followed. It does not look whether what is there is in use.
  ///
  /// - Throws: where a block device cannot be read.
  package init(at path: String) throws(LacunaError) {
    guard let kind = Self.kind(path) else {
      self = .nothing
      return
    }
    guard kind == S_IFBLK else {
      self = .file
      return
    }
    do {
      let file = try FileDescriptor.open(FilePath(path), .readOnly, options: [.closeOnExec])
      defer { try? file.close() }
      let marks = try (0..<StoreGeometry.superblockSlotCount).map { slot in
        var mark: UInt64 = 0
        let offset = Int64(StoreGeometry.superblockOffset(ofSlot: slot))
        // Safe: the kernel fills in at most the bytes of `mark`.
        _ = try unsafe withUnsafeMutableBytes(of: &mark) { try unsafe file.read(fromAbsoluteOffset: offset, into: $0) }
        return UInt64(littleEndian: mark)
      }
      self = .blockDevice(hasStore: marks.contains(Superblock.magic))
    } catch let error as Errno {
      throw LacunaError(.deviceFailed(errno: error.rawValue), "cannot read \(path): \(error)")
    } catch {
      throw LacunaError(.internalFailure, "\(error)")
    }
  }

  private static func kind(_ path: String) -> mode_t? {
    var status = stat()
    // Safe: the kernel fills in a structure of this type, which outlives the call.
    return unsafe stat(path, &status) == 0 ? status.st_mode & S_IFMT : nil
  }

  // MARK: What belongs to a store

  /// The file that belongs to the store at `store` and whose name ends in `suffix`, such as a socket of its server, unless that was told
  /// otherwise: beside a store in a file, with `suffix` after its name. What belongs to one on a block device is not put into /dev: it
  /// is named for the device in `/run/lacuna/dev`, or for a user with a runtime folder of their own in `$XDG_RUNTIME_DIR/lacuna/dev`.
  ///
  /// - Parameter followsLinks: whether a file is looked for through symbolic links; a block device always is.
  package static func companion(ofStore store: String, suffix: String, followsLinks: Bool = false) -> String {
    guard let file = FoundFile(at: store) else { return store + suffix }
    return file.isBlockDevice || followsLinks ? companion(of: file, suffix: suffix) : store + suffix
  }

  /// The same for a store that was found, beside which a file is, whatever links led to it.
  package static func companion(of file: FoundFile, suffix: String) -> String {
    guard file.isBlockDevice else { return file.path + suffix }
    let parts = file.path.pathParts
    let name = (parts.first == "dev" ? parts.dropFirst() : parts[...]).joined(separator: "!")
    return "\(runtimeFolder)/dev/\(name)\(suffix)"
  }

  /// Makes the folder of such files, for this user alone, where it is one for block devices and is not there.
  ///
  /// - Throws: `.untrusted` where it is there and belongs to somebody else, or others may put something into it.
  package static func makeFolder(forStore store: String) throws(LacunaError) {
    guard let store = FoundFile(at: store), store.isBlockDevice else { return }
    // The outer one may have sockets of systemd's, for other users.
    for (folder, mode) in [(runtimeFolder, 0o755 as mode_t), ("\(runtimeFolder)/dev", 0o700)] {
      do throws(Errno) {
        let isNew = try ControlCalls.makeDirectory(folder, mode)
        let descriptor = try ControlCalls.openDirectory(folder, followsLinks: false)
        let status = try ControlCalls.status(of: descriptor)
        guard Believed(owner: store.owner).includes(status.st_uid) else { throw .notPermitted }
        guard status.st_mode & 0o022 == 0 else { throw .permissionDenied }
        // Whatever the umask is.
        if isNew, status.st_mode & 0o7777 != mode { try ControlCalls.setPermissions(of: descriptor, to: mode) }
      } catch {
        throw failure(error, folder)
      }
    }
  }

  private static func failure(_ error: Errno, _ folder: String) -> LacunaError {
    let advice = "; say where to listen, with --socket and control=, or put that right"
    let owner = FoundFile(at: folder)?.owner
    return switch error {
    case .notPermitted where owner != nil:
      LacunaError(
        .untrusted,
        "the folder \(folder), where the sockets of a store on a block device are, belongs to \(User.text(owner ?? 0)), which is neither "
          + "your user, nor root, nor the owner of the store\(advice)")
    case .permissionDenied where owner != nil:
      LacunaError(
        .untrusted,
        "others may write to the folder \(folder), where the sockets of a store on a block device are\(advice)")
    case .tooManySymbolicLinkLevels, .notDirectory:
      LacunaError(
        .untrusted, "\(folder), where the sockets of a store on a block device are, is no folder\(advice)")
    default:
      LacunaError(
        .deviceFailed(errno: error.rawValue),
        "cannot make \(folder), where the sockets of a store on a block device are: \(error)\(advice)")
    }
  }

  private static var runtimeFolder: String {
    guard geteuid() != 0, let folder = ownRuntimeFolder else { return "/run/lacuna" }
    return "\(folder)/lacuna"
  }

  /// The folder that `XDG_RUNTIME_DIR` names; nil where it does not belong to this user, as after su(1), or others may write to it.
  package static var ownRuntimeFolder: String? {
    // Safe: the value ends in a NUL, and nothing changes the environment.
    guard let value = unsafe getenv("XDG_RUNTIME_DIR"), case let path = unsafe String(cString: value),
      path.isAbsolutePath,
      let folder = FoundFile(at: path), folder.mode & S_IFMT == S_IFDIR, folder.owner == geteuid(),
      folder.mode & 0o022 == 0
    else { return nil }
    return folder.path
  }
}
