internal import Devices
internal import ExtentFS
struct SpaceAccount { var exclusiveBlocks: UInt64; var exclusiveNodes: UInt64; var mappedBlocks: UInt64 }
struct VolumeAttributes { var isReadOnly: Bool?; var quotaByteCount: UInt64?; var reservationByteCount: UInt64? }
extension Engine {
  func spaceAccount(of name: String) throws(ExtentFSError) -> SpaceAccount {
    throw ExtentFSError(.invalidArgument, "x")
  }
  func setAttributes(of name: String, _ c: VolumeAttributes, force: Bool) throws(ExtentFSError) {
    throw ExtentFSError(.invalidArgument, "x")
  }
}
