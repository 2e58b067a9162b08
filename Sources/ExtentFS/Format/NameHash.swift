/// The keys of the tree of names.
package enum NameHash {
  /// The 64-bit FNV-1a hash of the name's UTF-8 bytes. Where that key has another name, the next free key serves.
  package static func key(of name: String) -> UInt64 {
    var hash: UInt64 = 0xCBF2_9CE4_8422_2325
    for byte in name.utf8 { hash = (hash ^ UInt64(byte)) &* 0x100_0000_01B3 }
    return hash
  }
}
