/// `control.hello`: asks whether the other side speaks a version of the calls. Nobody needs to begin with it.
///
/// Throws `.notSupported` for a version that it does not speak.
package struct Hello: StoreMethod {
  package static let name = "control.hello"
  /// The version that the client was written for.
  package var version: Int

  package init(version: Int = ControlProtocol.version) { self.version = version }

  /// Who answers.
  package struct Result: Codable, Sendable, Hashable {
    /// The newest version of the calls that it speaks.
    package var version: Int
    /// The program, for people: `lacuna 0.1.0`.
    package var server: String
    /// The store's file; nil where the server does not tell.
    package var file: FileNumber?

    package init(version: Int, server: String, file: FileNumber? = nil) {
      self.version = version
      self.server = server
      self.file = file
    }
  }

  /// Which file a store is in, whatever its name is, on one machine.
  package struct FileNumber: Codable, Sendable, Hashable {
    /// The device that the file is on; of a block device, its own number.
    package var device: UInt64
    /// The file's inode; 0 of a block device.
    package var inode: UInt64

    package init(device: UInt64, inode: UInt64) {
      self.device = device
      self.inode = inode
    }
  }

  package func perform(
    on store: Store, progress: (Progress) throws(LacunaError) -> Void
  ) throws(LacunaError) -> Result {
    guard version == ControlProtocol.version else {
      throw LacunaError(
        .notSupported,
        "lacuna \(LacunaVersion.current) speaks version \(ControlProtocol.version) of its calls, not \(version)"
      )
    }
    return Result(version: ControlProtocol.version, server: "lacuna \(LacunaVersion.current)", file: store.fileNumber)
  }
}
