internal import ArgumentParser
internal import Lacuna

struct Delete: Verb {
  static let configuration = CommandConfiguration(
    abstract: "Delete volumes and snapshots, in any order.",
    usage: "lacuna delete STORE NAME ... [options]",
    discussion: """
      The names are gone at once, all or none. A volume's snapshots stay, unless --snapshots is given. The space of a
      served store comes back in the background, unless --wait waits for it; that of a free store now. It asks first, unless --yes is given.

      Examples:
        lacuna delete s.lacuna vm1@monday
        lacuna delete s.lacuna vm1 --snapshots --dry-run
        lacuna delete s.lacuna vm1 vm2 --snapshots --yes --wait
      """.unwrapped)

  @OptionGroup var target: StoreArgument

  @Argument(help: "Volumes and snapshots.", completion: .volumeNames)
  var names: [String]

  @Flag(name: [.customShort("n"), .long], help: "Only say what would go, and how much space would come back.")
  var dryRun = false

  @Flag(name: [.short, .long], help: "Also the snapshots of the volumes.")
  var snapshots = false

  @Flag(help: "Also while clients are connected; their requests fail from then on.")
  var force = false

  @Flag(help: "Wait until the space is free again.")
  var wait = false

  @OptionGroup var confirmation: YesOption

  @OptionGroup var common: CommonOptions

  func run() throws {
    var remains = Remains()
    let result = try withStore(dryRun ? .reading : .writing) { store in
      // What of a damaged store cannot be found out is not said, and holds up nothing.
      if let found = try? Remains(of: names, in: store) { remains = found }
      if dryRun { return try plan(store) }
      // Nobody goes on with it where the store is free.
      var method = DeleteVolumes(names: names, force: force, snapshots: snapshots, wait: wait || store.isFree)
      if !confirmation.yes {
        // Only who can be asked is told what it gives back, which takes time to find out; and a yes is to that, and to nothing that came
        // since, such as a snapshot.
        let plan = Terminal.canAsk ? try plan(store) : DeletionResult(deleted: names)
        try Confirmation.ask(plan.question, isGiven: false)
        (method.names, method.snapshots) = (plan.deleted, false)
      }
      return try store.call(method)
    }
    try show(result) {
      $0.text(isPlan: dryRun) + remains.text(after: $0, isPlan: dryRun, store: target.store)
    }
    if let damaged = result.damaged { throw Failure(DeletionResult.text(of: damaged)) }
  }

  private func plan(_ store: StoreAccess) throws -> DeletionResult {
    try store.call(DeleteVolumes(names: names, force: force, snapshots: snapshots, dryRun: true))
  }
}

/// What there is after a deletion that one may not expect.
private struct Remains {
  /// The snapshots that are named for each volume.
  var snapshots: [(volume: String, names: [String])] = []
  /// The default volume, where it is deleted.
  var formerDefault: String?

  /// How many names are shown for each volume.
  private static var namesMax: Int { 3 }

  init() {}

  /// Of what is about to be deleted.
  init(of names: [String], in store: StoreAccess) throws {
    let volumes = Set(names.filter { !$0.contains("@") })
    guard !volumes.isEmpty else { return }
    formerDefault = try store.call(GetStoreInfo()).defaultVolume.flatMap { volumes.contains($0) ? $0 : nil }
    let prefix = volumes.count == 1 ? volumes.first.map { $0 + "@" } : nil
    let all = try store.volumes(prefix: prefix, kind: .snapshot).map(\.name)
    let byVolume = Dictionary(grouping: all) { String($0.prefix { $0 != "@" }) }
    snapshots = volumes.sorted().compactMap { volume in byVolume[volume].map { (volume, $0) } }
  }

  func text(after result: DeletionResult, isPlan: Bool, store: String) -> String {
    let deleted = Set(result.deleted)
    let lines = snapshots.compactMap { volume, all -> String? in
      let names = all.filter { !deleted.contains($0) }
      guard !names.isEmpty else { return nil }
      let more = names.count - Self.namesMax
      let verb = isPlan ? "would stay" : names.count == 1 ? "stays" : "stay"
      return "\(HumanReadable.count(names.count, "snapshot")) named for \(volume.visible) \(verb): "
        + names.prefix(Self.namesMax).map(\.visible).joined(separator: ", ") + (more > 0 ? " and \(more) more" : "")
        + "\n"
    }
    let last = formerDefault.map {
      "\($0.visible) \(isPlan ? "is" : "was") the default volume; there \(isPlan ? "would be none then" : "is none now")"
        + " ('lacuna set \(store.shellQuoted) NAME --default' makes one of another)\n"
    }
    return lines.joined() + (last ?? "")
  }
}

extension DeletionResult {
  /// What is asked before it is done.
  fileprivate var question: String {
    let what = deleted.count <= 3 ? deleted.joined(separator: ", ") : HumanReadable.count(deleted.count, "name")
    return "Deleting \(what)" + (bytes.map { ", which frees at least \(HumanReadable.bytes($0))" } ?? "")
  }

  /// What stays in use, and why, in one line.
  fileprivate static func text(of damaged: [Damaged]) -> String {
    let named = damaged.prefix(3).map { "'\($0.name)': \($0.text)" }.joined(separator: "; ")
    let rest = damaged.count > 3 ? "; and \(damaged.count - 3) more" : ""
    // What a damaged store counts may be too much for a sum.
    let bytes = damaged.reduce(0) { $0 &+ $1.bytes }
    return
      "deleted; but \(damaged.count == 1 ? "one" : "\(damaged.count)") cannot be read as a whole, so that up to "
      + "\(HumanReadable.exactBytes(bytes)) stay in use (\(named)\(rest)); 'lacuna check' says more"
  }

  fileprivate func text(isPlan: Bool) -> String {
    deleted.map { "\(isPlan ? "Would delete" : "Deleted") \($0.visible)\n" }.joined()
      + (bytes.map { "At least \(HumanReadable.exactBytes($0)) would come back\n" } ?? "")
  }
}
