/// What became of looks into a cache since the store was opened.
package struct CacheStatistics: Sendable {
  package var hitCount: UInt64 = 0
  package var missCount: UInt64 = 0
  /// What is in memory.
  package var byteCount: UInt64 = 0
}
