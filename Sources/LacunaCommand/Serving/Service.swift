/// What is served, as nbdkit is told.
struct Service {
  let nbdkit: NBDKit
  let plugin: String
  /// Options of nbdkit, and parameters of the plugin.
  let options: [String]
  let parameters: [String]

  /// Whether the disk is gone when nbdkit ends.
  var isInMemory: Bool { parameters.contains { $0.hasPrefix("memory=") } }

  /// The arguments of an nbdkit that listens by itself.
  func arguments(listeningOn address: ListenAddress) -> [String] {
    ["--foreground"] + options + [plugin] + parameters + address.options
  }

  /// The command of an nbdkit that a supervisor runs.
  ///
  /// - Parameter makesStore: whether a store is made that is not there, as far as the parameters say so. Not where it takes
  ///   another nbdkit's place: an empty store must not take the place of one that has gone, and a volume may have another size by
  ///   now.
  func supervisedCommand(makesStore: Bool) -> [String] {
    var parameters = parameters
    if !makesStore, !isInMemory {
      parameters.removeAll { $0.hasPrefix("create=") || $0.hasPrefix("size=") }
      parameters.append("create=false")
    }
    return [nbdkit.path, "--foreground"] + options + [plugin] + parameters + ServedProcess.readinessOptions
  }
}
