internal import Bytes
internal import Devices
internal import ExtentFS

/// What a block device holds, as far as its bytes tell without being understood.
///
/// A device is blank only where all places are zero in which anything known keeps what it is recognized by. That is stricter than to
/// look for marks: what nobody knows is not overwritten either, and no library that knows marks is needed, here or where the plugin
/// runs. The marks below are for messages alone.
enum DeviceContents: Equatable {
  case blank
  /// What has the mark of a store, whatever else is wrong with it.
  case store
  /// Anything else, in words that fit after "holds".
  case other(String)

  /// Looks at an open device.
  init(of device: FileDevice) throws(DeviceError) {
    let beginning = try device.bytes(0..<min(Self.markedEnd, device.byteCount))
    if Self.hasStore(beginning) {
      self = .store
      return
    }
    let marked = FileDevice.markedByteCounts
    let end = device.byteCount - min(marked.end, device.byteCount)
    var isBlank = true
    for range in [0..<min(marked.beginning, device.byteCount), end..<device.byteCount] {
      var next = range.lowerBound
      while isBlank, next < range.upperBound {
        let piece = next..<min(next + (1 << 20), range.upperBound)
        isBlank = try device.bytes(piece).allSatisfy { $0 == 0 }
        next = piece.upperBound
      }
    }
    if isBlank {
      self = .blank
    } else {
      self = .other(Self.name(beginning, try device.bytes(end..<device.byteCount), device.byteCount))
    }
  }

  /// The marks lie before this place.
  private static let markedEnd: UInt64 = 1 << 17

  private static func hasStore(_ bytes: [UInt8]) -> Bool {
    // The mark is a number as it is stored, with the lowest byte first.
    let mark = (0..<8).map { UInt8(truncatingIfNeeded: Superblock.magic >> UInt64(8 * $0)) }
    return (0..<StoreGeometry.superblockSlotCount).contains { slot in
      bytes.has(mark, at: Int(StoreGeometry.superblockOffset(ofSlot: slot)))
    }
  }

  /// Marks at the beginning of a device: where, which bytes, and what has them. The first that fits counts.
  private static let marks: [(place: Int, bytes: [UInt8], name: String)] = [
    (0, Array("LUKS".utf8) + [0xBA, 0xBE], "an encrypted volume (LUKS)"),
    (512, Array("LABELONE".utf8), "a physical volume of LVM"),
    (0, Array("LABELONE".utf8), "a physical volume of LVM"),
    (4096, [0xFC, 0x4E, 0x2B, 0xA9], "a member of a RAID (md)"),
    (0, [0xFC, 0x4E, 0x2B, 0xA9], "a member of a RAID (md)"),
    (4086, Array("SWAPSPACE2".utf8), "swap space"),
    (65526, Array("SWAPSPACE2".utf8), "swap space"),
    (0, Array("XFSB".utf8), "an XFS file system"),
    (65600, Array("_BHRfS_M".utf8), "a btrfs file system"),
    (1080, [0x53, 0xEF], "an ext2, ext3 or ext4 file system"),
    (1024, [0x10, 0x20, 0xF5, 0xF2], "an F2FS file system"),
    (3, Array("NTFS    ".utf8), "an NTFS file system"),
    (3, Array("EXFAT   ".utf8), "an exFAT file system"),
    (54, Array("FAT".utf8), "a FAT file system"),
    (82, Array("FAT32".utf8), "a FAT file system"),
    (0, Array("hsqs".utf8), "a squashfs file system"),
    (32769, Array("CD001".utf8), "an ISO 9660 file system"),
    (512, Array("EFI PART".utf8), "a partition table (GPT)"),
    (4096, Array("EFI PART".utf8), "a partition table (GPT)"),
    (0, [0x51, 0x46, 0x49, 0xFB], "a qcow2 image"),
    (510, [0x55, 0xAA], "a partition table"),
  ]

  private static func name(_ beginning: [UInt8], _ end: [UInt8], _ byteCount: UInt64) -> String {
    if let mark = marks.first(where: { beginning.has($0.bytes, at: $0.place) }) { return mark.name }
    // The backup in the last sector, and what older RAIDs have 64 KiB or less before the end.
    let md: [UInt8] = [0xFC, 0x4E, 0x2B, 0xA9]
    let old = Int(clamping: Int64(end.count) - Int64(byteCount % 65536) - 65536)
    let new = Int(clamping: Int64(end.count) - Int64(byteCount % 4096) - 8192)
    if end.has(md, at: old) || end.has(md, at: new) { return "a member of a RAID (md)" }
    let partitions = Array("EFI PART".utf8)
    if end.has(partitions, at: end.count - 512) || end.has(partitions, at: end.count - 4096) {
      return "a partition table (GPT)"
    }
    return "data of an unknown kind"
  }
}

extension FileDevice {
  fileprivate func bytes(_ range: Range<UInt64>) throws(DeviceError) -> [UInt8] {
    var bytes = [UInt8](repeating: 0, count: Int(range.upperBound - range.lowerBound))
    let result = unsafe bytes.withUnsafeMutableBytes { buffer in
      // Safe: the buffer is used inside the closure only.
      Result { () throws(DeviceError) in try unsafe read(into: buffer, at: range.lowerBound) }
    }
    try result.get()
    return bytes
  }
}

extension [UInt8] {
  fileprivate func has(_ mark: [UInt8], at place: Int) -> Bool {
    place >= 0 && place + mark.count <= count && self[place..<place + mark.count].elementsEqual(mark)
  }
}
