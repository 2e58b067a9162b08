package import Devices

/// Why the engine on disk could not do what was asked.
package struct ExtentFSError: Error, Sendable, Equatable, CustomStringConvertible {
  /// What to branch on.
  package enum Code: Sendable, Equatable {
    /// No block is free, and the store may not grow.
    case outOfSpace
    /// A checksum, a bound or an invariant of what is stored does not hold.
    case damaged
    /// The engine contradicts itself. The fault is in this program: no bytes on the device can cause it.
    case internalInconsistency
    /// The device holds something that is no store.
    case notAStore
    /// The store has features that this version does not know.
    case newerFormat
    /// The store has features that this version does not know, and may be read, but not written.
    case readOnlyFormat
    /// The store's newest superblock may be lost: it may be read as of the one before, but not written.
    case olderSuperblock
    /// There is no volume or snapshot of that name.
    case noSuchVolume
    /// There is a volume or a snapshot of that name already.
    case nameTaken
    /// Clients use what was to be changed.
    case busy
    /// The volume is read-only.
    case readOnly
    /// The volume is gone: it was deleted while it was open.
    case deleted
    /// The volume may map no more blocks than it does.
    case quotaReached
    /// The range ends behind the volume's end.
    case outOfRange
    /// The caller asked for what cannot be.
    case invalidArgument
    /// More was changed below unreadable nodes than the journal can keep.
    case tooMuchToCarry
    /// An earlier failure left the store refusing writes until it is opened again.
    case failed
    /// The device failed.
    case device(DeviceError)
  }

  /// What to branch on.
  package var code: Code
  /// The facts, in words.
  package var facts: String

  /// The volume that `facts` name already; nil where they name none.
  package var volume: String?
  /// The block of the device that the error is about, where it is about one that could not be read.
  package var block: UInt64?

  /// Makes an error.
  package init(_ code: Code, _ facts: String) {
    self.code = code
    self.facts = facts
  }

  /// The error for a failed call on the device.
  package init(_ error: DeviceError) { self.init(.device(error), "\(error)") }

  /// A contradiction that no bytes on the device explain.
  static func internalInconsistency(_ facts: String) -> ExtentFSError { ExtentFSError(.internalInconsistency, facts) }

  /// The same error; `damaged` where a contradiction may have come from the device, in the records of a journal.
  func blamed(onJournal isForeign: Bool) -> ExtentFSError {
    guard code == .internalInconsistency, isForeign else { return self }
    return ExtentFSError(.damaged, facts)
  }

  /// The same error, whose facts name `volume`.
  package func naming(volume: String) -> ExtentFSError {
    var error = self
    error.volume = volume
    return error
  }

  /// The same error, about `block` unless it names another one already.
  func about(block: UInt64) -> ExtentFSError {
    var error = self
    error.block = error.block ?? block
    return error
  }

  /// Whether it says that a part of the store is not what was once written there, or that the device does not give it, though it
  /// gives others: what does not need that part can go on. A device that gives nothing is another matter.
  var isUnreadable: Bool { code == .damaged }

  /// Whether there is no room, in the store or at its host: nothing has happened then that could not be tried again.
  package var isLackOfSpace: Bool {
    switch code {
    case .outOfSpace: true
    case .device(let error): error.isLackOfSpace
    default: false
    }
  }

  /// One line of text.
  package var description: String { code == .internalInconsistency ? "internal inconsistency: \(facts)" : facts }
}
