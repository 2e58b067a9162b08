internal import Bytes

extension Superblock {
  /// Whether a power cut interrupted the writing of what is in `bytes`, over the slot of an older superblock, while `sound` counted:
  /// both ends have a generation, and not the same. Then `sound` was the newest that was ever whole.
  ///
  /// What has the same generation at both ends was written whole, and changed afterwards.
  static func isTorn(_ bytes: [UInt8], besides sound: Superblock) -> Bool {
    let (opening, closing) = (number(in: bytes, at: generationOffset), number(in: bytes, at: closingGenerationOffset))
    return opening != closing && sound.isNeighbour(opening) && sound.isNeighbour(closing)
  }

  /// Whether what is in the broken slot of `bytes` began as a superblock that was no newer than `sound`.
  static func wasOlder(_ bytes: [UInt8], than sound: Superblock) -> Bool {
    let opening = number(in: bytes, at: generationOffset)
    return sound.isNeighbour(opening) && opening <= sound.generation
  }

  /// Whether the other slot may have a superblock of that generation: the one before, a copy of this, or the next.
  private func isNeighbour(_ generation: UInt64) -> Bool {
    generation &+ 1 >= self.generation && generation <= self.generation &+ 1
  }

  /// What `bytes` were before some of them changed that are the same in all superblocks of this store, or any one of them; nil where
  /// that is not it. The checksum decides, and whatever it lets through must be a superblock of the same store that can stand beside
  /// `sound`.
  ///
  /// A wrong answer would take a chance of one in 2^32 for each of the 2^17 or so candidates; the caller looks at the trees too.
  static func mending(_ bytes: [UInt8], besides sound: Superblock) -> Superblock? {
    var model = [UInt8](repeating: 0, count: encodedByteCount)
    var span = model.mutableSpan
    var raw = unsafe span.mutableBytes
    sound.encode(into: &raw)
    for constants in [constantRanges + featureRanges, constantRanges + laterFeatureRanges] {
      var candidate = bytes
      for range in constants { candidate.replaceSubrange(range, with: model[range]) }
      if let found = decode(candidate, besides: sound) { return found }
      let open = (0..<encodedByteCount).filter { index in !constants.contains { $0.contains(index) } }
      for index in open {
        let old = candidate[index]
        if let value = value(at: index, of: candidate) {
          candidate[index] = value
          if let found = decode(candidate, besides: sound) { return found }
          candidate[index] = old
        }
      }
    }
    return nil
  }

  /// The value of the byte at `index` that makes the checksum right; nil where none does.
  ///
  /// CRCs are linear: what a changed byte does to one is the sum, without carry, of what each of its bits does.
  private static func value(at index: Int, of bytes: [UInt8]) -> UInt8? {
    func difference(_ bytes: [UInt8]) -> UInt32 {
      unsafe bytes.withUnsafeBytes { unsafe checksum($0.bytes) ^ $0.bytes.uint32(at: 12) }
    }
    let wrong = difference(bytes)
    var changed = bytes
    let effects = (0..<8).map { bit in
      changed[index] = bytes[index] ^ 1 << bit
      return difference(changed) ^ wrong
    }
    var (flips, effect): (UInt8, UInt32) = (0, 0)
    // In the order of a Gray code, where one bit changes at a time.
    for step in 1...255 {
      let bit = step.trailingZeroBitCount
      flips ^= 1 << bit
      effect ^= effects[bit]
      if effect == wrong { return bytes[index] ^ flips }
    }
    return nil
  }

  /// The superblock in `bytes`, where it is one of the same store that can stand beside `sound`.
  private static func decode(_ bytes: [UInt8], besides sound: Superblock) -> Superblock? {
    let found = unsafe bytes.withUnsafeBytes { buffer in
      // What is no superblock is no candidate; that is all its error could say.
      unsafe hasRightChecksum(buffer.bytes) ? try? Superblock(decoding: buffer.bytes) : nil
    }
    guard let found, found.uuid == sound.uuid, found.geometry == sound.geometry,
      found.createdSeconds == sound.createdSeconds, sound.isNeighbour(found.generation)
    else { return nil }
    return found
  }

  private static func number(in bytes: [UInt8], at offset: Int) -> UInt64 {
    unsafe bytes.withUnsafeBytes { unsafe $0.bytes.uint64(at: offset) }
  }
}
