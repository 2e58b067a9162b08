/// `control.hello`: asks whether the other side speaks a version of the calls. Nobody needs to begin with it.
///
/// Throws `.notSupported` for a version that it does not speak.
public struct Hello: StoreMethod {
  public static let name = "control.hello"
  /// The version that the client was written for.
  public var version: Int

  public init(version: Int = ControlProtocol.version) { self.version = version }

  /// Who answers.
  public struct Result: Codable, Sendable, Hashable {
    /// The newest version of the calls that it speaks.
    public var version: Int
    /// The program, for people: `lacuna 0.1.0`.
    public var server: String

    public init(version: Int, server: String) {
      self.version = version
      self.server = server
    }
  }

  public func perform(on store: Store, progress: (Progress) throws(LacunaError) -> Void) throws(LacunaError) -> Result {
    guard version == ControlProtocol.version else {
      throw LacunaError(
        .notSupported, "lacuna \(Lacuna.version) speaks version \(ControlProtocol.version) of its calls, not \(version)"
      )
    }
    return Result(version: ControlProtocol.version, server: "lacuna \(Lacuna.version)")
  }
}
