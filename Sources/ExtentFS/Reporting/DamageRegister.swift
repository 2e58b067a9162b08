internal import Bytes

/// One part of a store that cannot be read, and what that means.
package struct Damage: Sendable, Hashable {
  /// Which part: `volume 'vm1'`, `the bitmap of group 3`.
  package var part: String
  /// What is wrong with it.
  package var facts: String
  /// What that means for users.
  package var effect: String
  /// The block of the device that could not be read, where it is one.
  package var block: UInt64?
  /// Whether it is a part of the catalog, which says what volumes and snapshots there are.
  package var isInCatalog = false

  /// One line of text.
  package var text: String { "\(part): \(facts); \(effect)" }
}

/// What was found since the store was opened that cannot be read. The rest of the store goes on without it.
///
/// Thread safety: any thread.
package final class DamageRegister: Sendable {
  private let found = Locked<[(key: String, damage: Damage)]>(rank: .leaf, [])
  private let report: @Sendable (Damage) -> Void

  /// - Parameter report: hears of each part once, and where it means something else by now, on the thread that found it, which may hold locks: it must not call back.
  package init(report: @escaping @Sendable (Damage) -> Void = { _ in }) { self.report = report }

  /// All that was found, in that order.
  package var all: [Damage] { found.withLock { $0.map(\.damage) } }

  /// Under what damage to a volume is noted, whatever its name is.
  static func key(ofInode inode: UInt64) -> String { "inode \(inode)" }

  /// What was found of a volume; nil where nothing was.
  package func damage(ofInode inode: UInt64) -> Damage? {
    let key = Self.key(ofInode: inode)
    return found.withLock { found in found.first { $0.key == key }?.damage }
  }

  /// Takes note that `part` cannot be read.
  ///
  /// - Parameters:
  ///   - key: what it is called here, where its name may change; nil for `part`.
  ///   - isInCatalog: see `Damage`.
  func note(
    _ part: String, key: String? = nil, _ error: ExtentFSError, _ effect: String, isInCatalog: Bool = false
  ) {
    let damage = Damage(part: part, facts: error.facts, effect: effect, block: error.block, isInCatalog: isInCatalog)
    let isNew = found.withLock { found in
      guard let index = found.firstIndex(where: { $0.key == key ?? part }) else {
        found.append((key ?? part, damage))
        return true
      }
      defer { found[index].damage = damage }
      return found[index].damage.effect != effect
    }
    if isNew { report(damage) }
  }

  /// Takes note that what was noted under `key` is gone, or can be read after all.
  func forget(_ key: String) { found.withLock { found in found.removeAll { $0.key == key } } }
}

extension DamageRegister {
  func noteUnreadableInodes(_ error: ExtentFSError) {
    note(
      "a part of the tree of inodes", error, "the volumes and snapshots that it has cannot be opened", isInCatalog: true
    )
  }

  func noteUnreadableNames(_ error: ExtentFSError) {
    note(
      "a part of the tree of names", error, "names are looked for in the inodes until one is changed there",
      isInCatalog: true)
  }
}
