/// The library as a whole.
public enum Lacuna {
  /// The version of the library, by semantic versioning.
  public static let version = "0.1.0"
}
