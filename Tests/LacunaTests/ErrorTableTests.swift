import Devices
import ExtentFS
import Glibc
import Testing

@testable import Lacuna

@Suite struct `The table of errors` {
  /// A code of the engine on disk, the code that callers of the library see, its name as JSON, and the errno of a client.
  struct Row: Sendable, CustomTestStringConvertible {
    var engine: ExtentFSError.Code
    var code: LacunaError.Code
    var name: String
    var errno: Int32

    init(_ engine: ExtentFSError.Code, _ code: LacunaError.Code, _ name: String, _ errno: Int32) {
      (self.engine, self.code, self.name, self.errno) = (engine, code, name, errno)
    }

    var testDescription: String { "\(engine)" }
  }

  private static func failed(_ errno: Int32) -> ExtentFSError.Code {
    .device(DeviceError(operation: .write, errno: errno))
  }

  static let rows: [Row] = [
    Row(.outOfSpace, .outOfSpace, "outOfSpace", ENOSPC),
    Row(.damaged, .damaged, "damaged", EIO),
    Row(.internalInconsistency, .internalFailure, "internalFailure", EIO),
    Row(.notAStore, .notAStore, "notAStore", EINVAL),
    Row(.newerFormat, .newerFormat, "newerFormat", EINVAL),
    Row(.readOnlyFormat, .readOnlyFormat, "readOnlyFormat", EROFS),
    Row(.olderSuperblock, .olderSuperblock, "olderSuperblock", EROFS),
    Row(.noSuchVolume, .noSuchVolume, "noSuchVolume", ENOENT),
    Row(.nameTaken, .nameTaken, "nameTaken", EEXIST),
    Row(.busy, .busy, "busy", EBUSY),
    Row(.readOnly, .readOnly, "readOnly", EROFS),
    Row(.deleted, .deleted, "deleted", EIO),
    Row(.quotaReached, .quotaReached, "quotaReached", EDQUOT),
    Row(.outOfRange, .outOfRange, "outOfRange", EINVAL),
    Row(.invalidArgument, .invalidParameter, "invalidParameter", EINVAL),
    Row(.failed, .failed, "failed", EIO),
    Row(.tooMuchToCarry, .failed, "failed", EIO),
    Row(failed(EIO), .deviceFailed(errno: EIO), "deviceFailed", EIO),
    Row(failed(ENOSPC), .outOfSpace, "outOfSpace", ENOSPC),
    Row(failed(EDQUOT), .outOfSpace, "outOfSpace", ENOSPC),
    Row(failed(EFBIG), .outOfSpace, "outOfSpace", ENOSPC),
  ]

  @Test(arguments: rows)
  func `each code of the engine has one code, one name and one errno`(_ row: Row) {
    let error = LacunaError(ExtentFSError(row.engine, "the facts"))
    #expect(error.code == row.code)
    #expect(error.code.name == row.name)
    #expect(error.errno == row.errno)
    #expect(error.description.hasSuffix("the facts"))
  }

  @Test func `a volume is named once, whoever named it`() {
    let plain = LacunaError(ExtentFSError(.damaged, "a")).inVolume("vm1")
    #expect(plain.description == "volume 'vm1': a")
    #expect(plain.inVolume("vm1").description == plain.description)
    let named = LacunaError(ExtentFSError(.deleted, "volume 'old' was deleted").naming(volume: "old"))
    #expect(named.inVolume("vm1").description == "volume 'old' was deleted")
  }

  @Test func `an internal inconsistency says that it is one, and damage does not`() {
    #expect(LacunaError(ExtentFSError(.internalInconsistency, "a")).description == "internal inconsistency: a")
    #expect(LacunaError(ExtentFSError(.damaged, "a")).description == "a")
  }
}
