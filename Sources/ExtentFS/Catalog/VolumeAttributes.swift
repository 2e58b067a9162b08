/// What is to be different about a volume; nil for what stays.
package struct VolumeAttributes: Sendable, Hashable {
  /// Whether writes to it are refused.
  package var isReadOnly: Bool?
  /// How many bytes the volume may map; 0 for no limit. Where it maps more already, it may not grow.
  package var quotaByteCount: UInt64?
  /// How many bytes the volume is promised, those included that it maps; 0 for none.
  package var reservationByteCount: UInt64?
  /// Whether the empty name of an export stands for it. Where it does not, false changes nothing.
  package var isDefault: Bool?

  /// Nothing is different.
  package init() {}
}

/// What is to be different about a store as a whole; nil for what stays.
package struct StoreAttributes: Sendable, Hashable {
  /// The volume that the empty name of an export stands for; empty for none.
  package var defaultVolume: String?
  /// The length in bytes that the store's file does not grow beyond; 0 for none. A file that is longer stays so, and does not grow.
  package var limitByteCount: UInt64?

  package init(defaultVolume: String? = nil, limitByteCount: UInt64? = nil) {
    self.defaultVolume = defaultVolume
    self.limitByteCount = limitByteCount
  }
}
