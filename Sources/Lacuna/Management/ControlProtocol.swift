/// What client and server of the control socket agree on.
public enum ControlProtocol {
  /// The version of the calls. It grows when what a client may rely on changes; new methods and new keys in results do not
  /// change it.
  public static let version = 1
}
