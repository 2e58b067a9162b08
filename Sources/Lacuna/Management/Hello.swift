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
    /// The store's file; nil where the server does not tell.
    public var file: FileNumber?

    public init(version: Int, server: String, file: FileNumber? = nil) {
      self.version = version
      self.server = server
      self.file = file
    }
  }

  /// Which file a store is in, whatever its name is, on one machine.
  public struct FileNumber: Codable, Sendable, Hashable {
    /// The device that the file is on; of a block device, its own number.
    public var device: UInt64
    /// The file's inode; 0 of a block device.
    public var inode: UInt64

    public init(device: UInt64, inode: UInt64) {
      self.device = device
      self.inode = inode
    }
  }

  public func perform(on store: Store, progress: (Progress) throws(LacunaError) -> Void) throws(LacunaError) -> Result {
    guard version == ControlProtocol.version else {
      throw LacunaError(
        .notSupported, "lacuna \(Lacuna.version) speaks version \(ControlProtocol.version) of its calls, not \(version)"
      )
    }
    return Result(version: ControlProtocol.version, server: "lacuna \(Lacuna.version)", file: store.fileNumber)
  }
}
