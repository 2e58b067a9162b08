import CNBDKit
import Lacuna

/// One client's connection to one volume: what nbdkit's handle stands for.
final class Connection: Sendable {
  let volume: Volume
  let isWritable: Bool

  init(volume: Volume, isReadOnly: Bool) {
    self.volume = volume
    isWritable = !isReadOnly && !volume.isReadOnly
  }
}

/// How many exports nbdkit takes in one list; one more is an error.
private let exportCountMax = 10_000

extension nbdkit_plugin {
  /// What a client learns and settles before its first request: exports, size, abilities.
  mutating func addConnectionCallbacks() {
    unsafe addExportCallbacks()
    unsafe addGeometryCallbacks()
    unsafe addAbilityCallbacks()
  }

  private mutating func addExportCallbacks() {
    unsafe list_exports = { _, _, exports in
      answer { () throws(PluginError) in
        let volumes = try allowedVolumes()
        for volume in volumes.prefix(exportCountMax) {
          guard unsafe nbdkit_add_export(exports, volume.name, volume.summary) == 0 else { throw .alreadyReported }
        }
        if volumes.count > exportCountMax {
          debug("the list of exports ends after \(exportCountMax) of \(volumes.count); all of them can be opened")
        }
      }
    }

    unsafe default_export = { _, _ in
      unsafe answer(failure: nil) { () throws(PluginError) in
        // Without a default the empty name stays, and opening it says so.
        unsafe nbdkit_strdup_intern(try defaultVolumeName() ?? "")
      }
    }

    unsafe export_description = { handle in
      unsafe answer(handle, failure: nil) { unsafe nbdkit_strdup_intern($0.volume.description.summary) }
    }

    // The first call of a connection, before anything is read from it.
    unsafe preconnect = { _ in
      answer { () throws(PluginError) in try ClientLimit.admit() }
    }

    unsafe open = { readonly in
      unsafe answerWithHandle { () throws(PluginError) in try openConnection(isReadOnly: readonly != 0) }
    }
    unsafe close = { handle in
      _ = unsafe answer(handle) { connection throws(LacunaError) in try connection.volume.close() }
      unsafe closeHandle(handle)
    }
  }

  private mutating func addGeometryCallbacks() {
    unsafe get_size = { handle in
      // Safe to clamp: no volume has 2^63 bytes or more, and a smaller size harms nobody.
      unsafe answer(handle, failure: -1) { Int64(clamping: $0.volume.byteCount) }
    }

    unsafe block_size = { handle, minimum, preferred, maximum in
      unsafe answer(handle) { connection in
        unsafe minimum?.pointee = 1
        unsafe preferred?.pointee = connection.volume.preferredByteCount
        unsafe maximum?.pointee = RequestSize.byteCountMax
      }
    }

    unsafe is_rotational = { handle in
      unsafe answer(handle, failure: -1) { $0.volume.isRotational ? 1 : 0 }
    }
  }

  private mutating func addAbilityCallbacks() {
    unsafe can_write = { handle in
      unsafe answer(handle, failure: -1) { $0.isWritable ? 1 : 0 }
    }

    // True of every volume.
    unsafe can_flush = { _ in 1 }
    unsafe can_trim = { _ in 1 }
    unsafe can_zero = { _ in 1 }
    // Also where zeroing is never fast: the volume then answers EOPNOTSUPP. nbdkit (1.32.5) aborts when a client asks for
    // fast zeroes after it was told that there are none.
    unsafe can_fast_zero = { _ in 1 }
    unsafe can_extents = { _ in 1 }
    unsafe can_fua = { _ in NBDKIT_FUA_NATIVE }
    unsafe can_cache = { _ in NBDKIT_CACHE_NATIVE }
    // A flush on one connection covers what completed on all of them; but several connections to a throwaway for one would
    // each have their own.
    unsafe can_multi_conn = { handle in
      unsafe answer(handle, failure: -1) { $0.volume.isPrivate ? 0 : 1 }
    }
  }
}

/// What a client is told of.
private func allowedVolumes() throws(PluginError) -> [VolumeDescription] {
  let served = try Server.shared.served()
  do {
    return try served.store.volumes().filter { served.permissions.permission(for: $0.name) != nil }
  } catch {
    throw PluginError(error)
  }
}

/// What the empty name stands for; nil where nothing is that a client may open.
private func defaultVolumeName() throws(PluginError) -> String? {
  let served = try Server.shared.served()
  do {
    return try served.store.defaultVolumeName.flatMap { served.permissions.permission(for: $0) == nil ? nil : $0 }
  } catch {
    throw PluginError(error)
  }
}

private func openConnection(isReadOnly: Bool) throws(PluginError) -> Connection {
  let served = try Server.shared.served()
  let store = served.store
  let requested = try requestedExportName()
  do throws(LacunaError) {
    // Once: the store's default may become another one meanwhile.
    let name = requested.isEmpty ? try store.defaultVolumeName ?? "" : requested
    guard let permission = name.isEmpty ? .reading : served.permissions.permission(for: name) else {
      // A client hears the same of what is not there. By scalars, since one character may be of any length.
      let beginning = String(name.unicodeScalars.prefix(300))
      throw LacunaError(.noSuchVolume, "the export '\(beginning)' is not among those that allow= lets clients open")
    }
    let isReadOnly = isReadOnly || permission == .reading
    if !isReadOnly, let refusal = store.refusalOfWriting {
      throw LacunaError(refusal.code, "\(refusal.description); serve it for reading only, with nbdkit -r")
    }
    let connection = Connection(volume: try store.openVolume(named: name), isReadOnly: isReadOnly)
    ClientLimit.noteOpened()
    return connection
  } catch {
    throw PluginError(error)
  }
}

/// The name of the export that the client asked for, which is any bytes at all.
private func requestedExportName() throws(PluginError) -> String {
  guard let bytes = unsafe nbdkit_export_name() else { throw .alreadyReported }
  guard let name = unsafe String(validatingCString: bytes) else {
    throw PluginError("the name of the export is not UTF-8, so no volume has it", errno: ENOENT)
  }
  return name
}
