/// The version of this library, of the plugin and of the command. (Not called as the module is: `Lacuna.Store` would then be
/// looked for in it.)
public enum LacunaVersion {
  /// By semantic versioning.
  public static let current = "0.1.0"
}
