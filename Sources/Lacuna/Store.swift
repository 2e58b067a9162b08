internal import Bytes

/// What a list of volumes says of one.
public struct VolumeDescription: Sendable, Hashable {
  /// The volume's name, by which clients ask for it.
  public var name: String
  /// Its size in bytes.
  public var byteCount: UInt64
  /// Whether writes to it are refused.
  public var isReadOnly: Bool
  /// One line about it, for people.
  public var summary: String
  /// Whether each client that opens the same name gets contents of their own.
  public var isPrivate = false
}

/// An open store: the volumes in it. Safe to use from any thread. Once it is closed, every call throws `.closed`.
public final class Store: Sendable {
  private enum Contents {
    case memory(Volume)
    case disk(DiskStore)
  }

  private let contents: Contents
  private let gates = CallGates()
  /// Held while the store is being closed.
  private let closing = Locked(rank: .storeClosing, false)

  /// Opens or makes what `options` ask for.
  ///
  /// - Throws: `.invalidParameter` where they ask for nothing, or for something invalid; `.inUse`, `.notAStore`, `.newerFormat`,
  ///   `.damaged` for a file that cannot be served; `.deviceFailed` or `.outOfSpace` where the system refuses.
  public init(_ options: StoreOptions) throws(LacunaError) {
    switch (options.path, options.memoryByteCount) {
    case (nil, nil): throw LacunaError(.invalidParameter, "neither a store nor a size of a disk in memory was given")
    case (.some, .some):
      throw LacunaError(.invalidParameter, "a store and a disk in memory were both asked for; one is served at a time")
    case (nil, let byteCount?):
      contents = .memory(
        try Volume(inMemory: byteCount, engine: options.engine, gate: gates.makeVolumeGate()))
    case (let path?, nil): contents = .disk(try DiskStore(at: path, options, gates))
    }
  }

  /// What the user should know about how the store was found, one line each: what recovery had to drop, for example.
  public var warnings: [String] {
    switch contents {
    case .memory: []
    case .disk(let store): store.warnings
    }
  }

  /// Why the store may only be read though its file can be written to; nil where that is not so. Who wants to write should be
  /// told, rather than be given a volume that is read-only for no visible reason.
  public var refusalOfWriting: LacunaError? {
    switch contents {
    case .memory: nil
    case .disk(let store): store.refusalOfWriting
    }
  }

  /// Starts the work in the background, which needs a thread; without it, a store on disk makes writers wait more often.
  public func startBackgroundWork() throws(LacunaError) {
    try whileOpen { () throws(LacunaError) in
      if case .disk(let store) = contents { try store.startBackgroundWork() }
    }
  }

  /// The volumes that there are.
  public func volumes() throws(LacunaError) -> [VolumeDescription] {
    try whileOpen { () throws(LacunaError) in
      switch contents {
      case .memory(let volume): [volume.description]
      case .disk(let store): try store.volumes()
      }
    }
  }

  /// The name of the export that the empty name stands for; nil where there is none.
  public var defaultVolumeName: String? {
    get throws(LacunaError) {
      try whileOpen { () throws(LacunaError) in
        switch contents {
        case .memory(let volume): volume.description.name
        case .disk(let store): try store.defaultName
        }
      }
    }
  }

  /// Opens the export `name` for one client: a volume, a snapshot, or what is made of them (``docs/design.md``); the default one
  /// for the empty name. The caller closes it.
  ///
  /// - Throws: `.noSuchVolume`; `.readOnly` for a throwaway of a store that may only be read.
  public func openVolume(named name: String) throws(LacunaError) -> Volume {
    try whileOpen { () throws(LacunaError) in
      switch contents {
      case .disk(let store): return try store.openVolume(named: name)
      case .memory(let volume):
        if name.isEmpty || name.hasSameBytes(as: volume.description.name) { return volume }
        throw LacunaError(
          .noSuchVolume, "there is no volume '\(name.beginning(64))'; '\(volume.description.name)' is there")
      }
    }
  }

  /// The user whom the store's file belongs to now; nil of one in memory, or where that cannot be told.
  var owner: UInt32? {
    switch contents {
    case .memory: nil
    case .disk(let store): try? whileOpen { () throws(LacunaError) in store.device.owner }
    }
  }

  /// Which file it is in; nil of one in memory.
  var fileNumber: Hello.FileNumber? {
    guard case .disk(let store) = contents,
      let number = try? whileOpen({ () throws(LacunaError) in store.device.fileNumber })
    else { return nil }
    return Hello.FileNumber(device: number.device, inode: number.inode)
  }

  /// Says that this process answers others about the store from now on.
  func noteServing() {
    if case .disk(let store) = contents { store.isServing.withLock { $0 = true } }
  }

  /// Runs `body` as a call on the store, for whose end `close` waits.
  func whileOpen<Result>(_ body: () throws(LacunaError) -> Result) throws(LacunaError) -> Result {
    try gates.store.enter(body)
  }

  /// The store on disk, which alone has what can be asked for by name.
  func onDisk<Method: StoreMethod>(for _: Method.Type) throws(LacunaError) -> DiskStore {
    guard case .disk(let store) = contents else {
      throw LacunaError(.notSupported, "a disk in memory has no \(Method.name)")
    }
    return store
  }

  /// Gives the host back what is free, as far as that became free since the store was opened. A store with work in the background
  /// does it by itself when it is quiet.
  public func giveBackSpace() throws(LacunaError) {
    try whileOpen { () throws(LacunaError) in
      if case .disk(let store) = contents { try store.giveBackSpace() }
    }
  }

  /// Waits for the calls that are running, lets no other begin, tidies up, so that the next opening has less to do, and closes
  /// the store's file: when this returns, whether it throws or not, nothing has the file open or locked on behalf of this store,
  /// whoever still refers to the store or its volumes. What was acknowledged does not depend on it. Does nothing the second time.
  ///
  /// It must not be called from inside a call on the store or a volume, such as from what reports progress.
  ///
  /// - Throws: what failed in tidying up, or `.deviceFailed` where the process has no descriptor free, which closing needs; only then
  ///   does the file stay open, until the last reference goes.
  public func close() throws(LacunaError) {
    try closing.withLock { isClosed throws(LacunaError) in
      guard !isClosed else { return }
      isClosed = true
      gates.close()
      if case .disk(let store) = contents { try store.close() }
    }
  }
}
