/// One call to a store: what is asked, as a value that also crosses the control socket, and what comes back.
///
/// The same calls work on an open store (``Store/call(_:progress:)``) and, over the control socket, on one that another process
/// serves. As JSON, the keys are the names of the properties; what is optional, and every `Bool`, may be left
/// out. `docs/control.md` has the whole.
///
/// Units: sizes, offsets and counts of bytes in bytes, times in seconds since 1970.
public protocol StoreMethod: Codable, Sendable {
  /// What comes back.
  associatedtype Result: Codable & Sendable

  /// The name that the method has on the control socket, such as `volume.info`.
  static var name: String { get }

  /// Does it. Call ``Store/call(_:progress:)`` instead.
  func perform(on store: Store, progress: (Progress) throws(LacunaError) -> Void) throws(LacunaError) -> Result
}

/// How far a long call has come.
public struct Progress: Codable, Sendable, Hashable {
  /// What is being done, in words: "reading data".
  public var stage: String
  /// How much of it is done, in `unit`.
  public var done: UInt64
  /// How much there is; it may grow on the way. Nil where nobody knows.
  public var total: UInt64?
  /// What is counted.
  public var unit: Unit

  /// What progress counts.
  public enum Unit: String, Codable, Sendable {
    case bytes, blocks, volumes
  }

  /// Makes a report.
  public init(stage: String, done: UInt64, total: UInt64?, unit: Unit) {
    self.stage = stage
    self.done = done
    self.total = total
    self.unit = unit
  }
}

extension Store {
  /// Does what `method` asks for.
  ///
  /// Any thread may call it, at the same time as others, and while clients read and write.
  ///
  /// - Parameter progress: called now and then by this thread, where the call takes long; no lock is held meanwhile. What it throws
  ///   ends the call.
  /// - Throws: `.notSupported` on a store in memory, `.closed` on a closed one, and what the method's documentation says.
  public func call<Method: StoreMethod>(
    _ method: Method, progress: (Progress) throws(LacunaError) -> Void = { _ in }
  ) throws(LacunaError) -> Method.Result {
    try whileOpen { () throws(LacunaError) in try method.perform(on: self, progress: progress) }
  }
}

/// A `Bool` that is false where JSON leaves it out.
@propertyWrapper
public struct Flag: Codable, Sendable, Hashable {
  public var wrappedValue: Bool

  public init(wrappedValue: Bool) { self.wrappedValue = wrappedValue }

  public init(from decoder: any Decoder) throws {
    wrappedValue = try decoder.singleValueContainer().decode(Bool.self)
  }

  public func encode(to encoder: any Encoder) throws {
    var container = encoder.singleValueContainer()
    try container.encode(wrappedValue)
  }
}

extension KeyedDecodingContainer {
  /// What the compiler's own `init(from:)` calls for a ``Flag``, in place of the one that insists on the key.
  func decode(_: Flag.Type, forKey key: Key) throws -> Flag {
    try decodeIfPresent(Flag.self, forKey: key) ?? Flag(wrappedValue: false)
  }
}
