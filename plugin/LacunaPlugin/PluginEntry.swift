public import CNBDKit
import Lacuna

/// The one symbol that nbdkit looks for: what the plugin is and which callbacks it has.
///
/// nbdkit calls this once, before anything else, and copies what it finds.
@_cdecl("plugin_init")
public func pluginInit() -> UnsafeMutablePointer<nbdkit_plugin> {
  unsafe registration
}

/// The plugin's description and its strings, which live as long as the process.
///
/// Safe: initialized once and never written again. A global rather than a local of `pluginInit`, so that leak checkers
/// can still reach it.
nonisolated(unsafe) private let registration: UnsafeMutablePointer<nbdkit_plugin> = {
  let registration = UnsafeMutablePointer<nbdkit_plugin>.allocate(capacity: 1)
  unsafe registration.initialize(to: describePlugin())
  return unsafe registration
}()

private func describePlugin() -> nbdkit_plugin {
  var plugin = unsafe nbdkit_plugin()
  unsafe plugin._struct_size = UInt64(MemoryLayout<nbdkit_plugin>.stride)
  unsafe plugin._api_version = NBDKIT_API_VERSION
  unsafe plugin._thread_model = NBDKIT_THREAD_MODEL_PARALLEL
  // Swift's runtime may change the C variable errno on the way out of a callback, so nbdkit must not look at it.
  unsafe plugin.errno_is_preserved = 0

  unsafe plugin.name = permanentCString("lacuna")
  unsafe plugin.longname = permanentCString("Lacuna thin-provisioned disks")
  unsafe plugin.version = permanentCString(LacunaVersion.current)
  unsafe plugin.description = permanentCString("Serves disks that take space only for what was written.")
  unsafe plugin.magic_config_key = permanentCString(Parameter.bare.rawValue)
  unsafe plugin.config_help = permanentCString(Parameter.help)

  unsafe plugin.addLifecycleCallbacks()
  unsafe plugin.addConnectionCallbacks()
  unsafe plugin.addRequestCallbacks()
  return unsafe plugin
}

/// A copy of `text` as a C string that is never freed, because nbdkit keeps the pointer until the process ends.
private func permanentCString(_ text: String) -> UnsafePointer<CChar> {
  let bytes = Array(text.utf8CString)
  let copy = UnsafeMutableBufferPointer<CChar>.allocate(capacity: bytes.count)
  _ = unsafe copy.initialize(from: bytes)
  // Safe: utf8CString ends in a NUL, so the buffer is not empty and has a base address.
  return unsafe UnsafePointer(copy.baseAddress.unsafelyUnwrapped)
}
