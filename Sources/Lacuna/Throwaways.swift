internal import Bytes
internal import Devices
internal import ExtentFS
internal import Glibc

/// One throwaway that is open.
final class Throwaway: Sendable {
  /// The export name that its clients used.
  let name: String
  /// The inode that it was made from, which may have another name by now, or be gone.
  let origin: UInt64
  let volume: DiskVolume
  /// When it was made, in seconds since 1970.
  let createdSeconds = UInt64(max(time(nil), 0))

  init(name: String, origin: UInt64, _ volume: DiskVolume) {
    self.name = name
    self.origin = origin
    self.volume = volume
  }
}

/// The throwaways of a store that are open, by the names that their clients used.
struct Throwaways: Sendable {
  struct Entry {
    var throwaway: Throwaway
    var userCount = 1
  }

  /// Held while a shared throwaway is looked for and made, or closed, so that there is one of each name. It is held during
  /// input and output: a thread that waits for it would wait for the engine anyway.
  let opening = Lock(rank: .throwawayOpening)
  /// By inode.
  let open = Locked<[UInt64: Entry]>(rank: .storeTable, [:])

  /// All that are open.
  var all: [Throwaway] { open.withLock { $0.values.map(\.throwaway) } }

  /// Those of the name `name`, of which there may be several where they are not shared.
  func named(_ name: String) -> [Throwaway] { all.filter { $0.name == name } }
}

extension DiskStore {
  /// Opens a throwaway of `source`, for one more client; makes it, unless it has a label and is there. One that is there of an
  /// earlier `source` is another one, as long as something else is called so now.
  func openThrowaway(
    named name: String, of source: String, isShared: Bool
  ) throws(LacunaError) -> Throwaway {
    guard !isReadOnly else {
      throw LacunaError(.readOnly, "'\(name)': a throwaway cannot be made, since the store is served for reading only")
    }
    guard isShared else { return try makeEphemeralClone(named: name, of: source) }
    return try throwaways.opening.withLock { () throws(LacunaError) in
      let current = try onDisk { () throws(ExtentFSError) in try engine.findVolume(named: source)?.inode }
      let found = throwaways.open.withLock { open -> Throwaway? in
        let match = open.first { _, entry in
          entry.throwaway.name == name && (current == nil || entry.throwaway.origin == current)
        }
        guard let inode = match?.key else { return nil }
        open[inode]?.userCount += 1
        return open[inode]?.throwaway
      }
      return if let found { found } else { try makeEphemeralClone(named: name, of: source) }
    }
  }

  private func makeEphemeralClone(named name: String, of source: String) throws(LacunaError) -> Throwaway {
    let made: (volume: DiskVolume, record: InodeRecord?)
    do throws(LacunaError) {
      made = try onDisk { () throws(ExtentFSError) in
        let volume = try engine.makeEphemeralClone(of: source)
        return (volume, try engine.volumeRecord(of: volume.inode))
      }
    } catch {
      // The client hears no more than that there is no such export, and the log is where one looks for why.
      throw LacunaError(error.code, "the throwaway '\(name.beginning(300))' cannot be made: \(error.description)")
    }
    let (volume, throwaway) = (made.volume, Throwaway(name: name, origin: made.record?.origin ?? 0, made.volume))
    throwaways.open.withLock { $0[volume.inode] = Throwaways.Entry(throwaway: throwaway) }
    return throwaway
  }

  /// Ends one client's use of a throwaway, which goes with the last one, unless it was promoted.
  func close(_ throwaway: Throwaway) throws(LacunaError) {
    try throwaways.opening.withLock { () throws(LacunaError) in
      let (isLast, isPromoted) = throwaways.open.withLock { open in
        guard var entry = open[throwaway.volume.inode] else { return (false, true) }
        entry.userCount -= 1
        open[throwaway.volume.inode] = entry.userCount > 0 ? entry : nil
        return (entry.userCount == 0, false)
      }
      if isPromoted { return engine.closeVolume(throwaway.volume) }
      if isLast { try onDisk { () throws(ExtentFSError) in try engine.discardEphemeralClone(throwaway.volume) } }
    }
  }
}

extension DiskStore {
  /// Keeps the throwaway `name` as the volume `volume`. Its clients go on with it.
  func promote(_ name: String, as volume: String) throws(LacunaError) {
    try throwaways.opening.withLock { () throws(LacunaError) in
      let candidates = throwaways.named(name)
      guard let throwaway = candidates.first else {
        throw notStored(name) ?? LacunaError(.noSuchVolume, "'\(name.beginning(300))' is not the name of a throwaway")
      }
      guard candidates.count == 1 else {
        let text =
          name.hasSuffix("+")
          ? "\(candidates.count) clients have a throwaway '\(name)' each; open it as '\(name)NAME' to tell it apart"
          : "there are \(candidates.count) throwaways '\(name)', of different volumes that were called so; when the clients of all but one have gone, that one can be kept"
        throw LacunaError(.busy, text)
      }
      try changing { engine throws(ExtentFSError) in
        try engine.promote(throwaway.volume, as: volume)
        // From now on each client is one of the volume's, and closes it.
        let entry = throwaways.open.withLock { $0.removeValue(forKey: throwaway.volume.inode) }
        engine.addUsers((entry?.userCount ?? 1) - 1, to: throwaway.volume)
      }
    }
  }
}
