/// How a check gets pictures of a store in use that hold still while it looks at them.
///
/// What a superblock reaches through its trees, nodes and data, stays as it is for as long as its epoch is held: no block is
/// written over, and none that was given up since is used again. Bitmaps and checksum blocks are another matter: each has two
/// places that are written in turn. The first checkpoint behind a superblock leaves its places alone; the second one that
/// changes the same group writes over them. So what a check needs of them it reads right after it took the point, and what was
/// written over meanwhile shows: its checksum is not the one that the point's record says, and there is a newer point. Then
/// the check takes that one and reads again. Only where a few attempts came too late does it hold checkpoints off, for the time
/// of that reading alone.
///
/// Concretely, with a point S, and T for any newer one:
/// 1. The bitmaps of S are copied first, all of them (32 KiB for each GiB, with blocks of 4096 bytes), or the check starts over at a newer S.
/// 2. The trees of S are walked, and compared with the copies. Its epoch is held no longer than that, since holding it keeps
///    all that is given up meanwhile from being used again.
/// 3. Data is read 1024 blocks or so at a time, each time at the newest T: the checksum block and the bitmap of T say what must be
///    there and what is still used. A block that was data in S may have been given up, and may even be a node in T, which has no
///    checksum there. So one that differs is a suspicion, no finding.
/// 4. Suspects are looked for in the trees of the newest T: what leads to them there as data, and still differs while T is
///    held, is damaged.
package struct StorePoints {
  /// Takes the newest durable superblock, and holds what it reaches until the next call, or until this value is gone.
  package var take: () -> Superblock
  /// Calls its argument while no checkpoint runs.
  package var withoutCheckpoints: (() throws(ExtentFSError) -> Void) throws(ExtentFSError) -> Void

  /// The one point of a store that does not change.
  static func fixed(_ superblock: Superblock) -> StorePoints {
    StorePoints(take: { superblock }, withoutCheckpoints: { body throws(ExtentFSError) in try body() })
  }

  /// How often a check reads what was written over under its hands before it holds checkpoints off.
  private static var attemptCountMax: Int { 4 }

  /// Calls `body` with the newest point; again with a newer one where it found damage and there is one by now.
  ///
  /// - Throws: what `body` threw at a point that was still the newest.
  func read<Result>(_ body: (Superblock) throws(ExtentFSError) -> Result) throws(ExtentFSError) -> Result {
    for _ in 0..<Self.attemptCountMax {
      let point = take()
      do throws(ExtentFSError) {
        return try body(point)
      } catch {
        guard error.code == .damaged, take().generation != point.generation else { throw error }
      }
    }
    var result: Result?
    try withoutCheckpoints { () throws(ExtentFSError) in result = try body(take()) }
    guard let result else { throw ExtentFSError(.failed, "a check could not look while no checkpoint ran") }
    return result
  }
}
