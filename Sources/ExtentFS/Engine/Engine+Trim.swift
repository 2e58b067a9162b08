extension Engine {
  /// Gives the host back what is free, as far as the device can, but for `blockCount` blocks; all of it only as long as
  /// nobody changes anything.
  package func trim(leaving blockCount: UInt64) throws(ExtentFSError) { try hostSpace.trim(leaving: blockCount) }

  /// Looks in the next parts of the store for what the host holds of free blocks, and gives it back, as long as nobody changes anything.
  /// False where all parts have been looked at since the store was opened.
  ///
  /// - Throws: also where the device cannot tell.
  package func reclaimSome() throws(ExtentFSError) -> Bool { try hostSpace.reclaimSome() }

  /// Gives the host back all that it holds of free blocks, what is deleted included, whether the store is quiet or not. On a device that
  /// cannot tell what it holds: all that is free.
  ///
  /// - Parameter progress: hears how many blocks of how many were looked at; no lock is held. What it throws ends the call.
  /// - Throws: `.device` with `EOPNOTSUPP` where the device takes nothing back.
  package func reclaimAll(
    _ progress: (_ done: UInt64, _ total: UInt64) throws(ExtentFSError) -> Void
  ) throws(ExtentFSError) -> ReclaimedSpace {
    try hostSpace.withoutBackground { () throws(ExtentFSError) in
      try checkpoint()
      try progress(0, space.blockCount)
      while try dropDeleted() { try progress(0, space.blockCount) }
      return try hostSpace.reclaimAll(progress)
    }
  }
}
