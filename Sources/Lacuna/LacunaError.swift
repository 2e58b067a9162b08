internal import BlockStores
internal import Devices
internal import ExtentFS
internal import Glibc

/// Why a store or a volume could not do what was asked: a code to branch on, an errno for the client, one line of text.
public struct LacunaError: Error, Sendable, CustomStringConvertible {
  /// What to branch on.
  public enum Code: Sendable, Hashable {
    /// A parameter is missing, or has a value that nothing can be made of.
    case invalidParameter
    /// There is no volume of that name.
    case noSuchVolume
    /// The volume was deleted while it was open.
    case deleted
    /// There is something of that name already.
    case nameTaken
    /// Clients are connected, and what was asked for would take something away from them.
    case busy
    /// The volume or the store refuses changes.
    case readOnly
    /// The volume may not map more blocks than it does.
    case quotaReached
    /// The range ends past the volume's end.
    case outOfRange
    /// There is no room for what was to be written.
    case outOfSpace
    /// The volume cannot do this, or not in the way that was asked for.
    case notSupported
    /// What is stored is not what was once written there.
    case damaged
    /// The store refuses changes since something failed, until it is opened again.
    case failed
    /// Another process has the store open.
    case inUse
    /// The store was closed, by ``Store/close()``.
    case closed
    /// What was to be opened is no store.
    case notAStore
    /// The store has features that this version does not know.
    case newerFormat
    /// The store may only be read, since it has features that this version does not know.
    case readOnlyFormat
    /// The store may only be read, since its newest superblock may be lost.
    case olderSuperblock
    /// Nobody answers on the control socket, or not in time.
    case unreachable
    /// Somebody else listens on the control socket, or has it in the way.
    case untrusted
    /// What came over the control socket is no request, or no answer.
    case invalidRequest
    /// The device below failed, with this errno.
    case deviceFailed(errno: Int32)
    /// The engine contradicted itself.
    case internalFailure
  }

  /// What to branch on.
  public var code: Code
  /// One line of text.
  public var description: String
  /// What the user may do next, which `description` does not say; nil where there is nothing to be said.
  public var advice: String?
  /// The volume that `description` names already; nil where it names none.
  var volume: String?

  /// Makes an error.
  public init(_ code: Code, _ description: String) {
    self.code = code
    self.description = description
  }

  /// The error number that a client or a program gets to see: the one table from codes to numbers.
  public var errno: Int32 {
    switch code {
    case .invalidParameter: EINVAL
    case .noSuchVolume: ENOENT
    // The protocol has no ENOENT: a client would be told that its request was wrong.
    case .deleted: EIO
    case .nameTaken: EEXIST
    case .busy: EBUSY
    case .readOnly: EROFS
    case .quotaReached: EDQUOT
    case .outOfRange: EINVAL
    case .outOfSpace: ENOSPC
    case .notSupported: EOPNOTSUPP
    case .damaged: EIO
    case .failed: EIO
    case .inUse: EBUSY
    case .closed: EBADF
    case .notAStore, .newerFormat: EINVAL
    case .readOnlyFormat, .olderSuperblock: EROFS
    case .unreachable: ECONNREFUSED
    case .untrusted: EACCES
    case .invalidRequest: EPROTO
    case .deviceFailed(let errno): errno
    case .internalFailure: EIO
    }
  }
}

extension LacunaError {
  /// What a store in memory reported.
  init(_ error: StoreError) {
    let code: Code =
      switch error.code {
      case .outOfSpace: .outOfSpace
      case .outOfRange: .outOfRange
      case .malformed: .damaged
      case .deviceFailed(let errno): .deviceFailed(errno: errno)
      case .notAllocated, .wrongInode, .inUse: .internalFailure
      }
    self.init(code, "\(error)")
  }

  /// What a store on disk reported.
  init(_ error: ExtentFSError) {
    let code: Code =
      switch error.code {
      case .outOfSpace: .outOfSpace
      case .damaged: .damaged
      case .internalInconsistency: .internalFailure
      case .notAStore: .notAStore
      case .newerFormat: .newerFormat
      case .readOnlyFormat: .readOnlyFormat
      case .olderSuperblock: .olderSuperblock
      case .noSuchVolume: .noSuchVolume
      case .deleted: .deleted
      case .nameTaken: .nameTaken
      case .busy: .busy
      case .readOnly: .readOnly
      case .quotaReached: .quotaReached
      case .outOfRange: .outOfRange
      case .invalidArgument: .invalidParameter
      case .failed, .tooMuchToCarry: .failed
      case .device(let failure): failure.code
      }
    self.init(code, "\(error)")
    volume = error.volume
  }

  /// What a device reported.
  init(_ error: DeviceError) { self.init(error.code, "\(error)") }

  /// The same error, which names the volume `name`.
  func inVolume(_ name: String) -> LacunaError {
    guard volume == nil else { return self }
    var error = self
    error.description = "volume '\(name)': \(description)"
    error.volume = name
    return error
  }
}

extension DeviceError {
  /// A quota of the host, or a limit of the length of files (`ulimit -f`), is a lack of room like any other.
  fileprivate var code: LacunaError.Code { isLackOfSpace ? .outOfSpace : .deviceFailed(errno: errno) }
}
