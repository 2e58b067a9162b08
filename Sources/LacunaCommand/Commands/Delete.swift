internal import ArgumentParser
internal import Glibc
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
      """)

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
    let result = try withStore(dryRun ? .reading : .writing) { store in
      if dryRun { return try plan(store) }
      // Only who can be asked is told what it gives back, which takes time to find out.
      let plan = Terminal.canAsk && !confirmation.yes ? try plan(store) : DeletionResult(deleted: names, bytes: nil)
      try Confirmation.ask(plan.question, isGiven: confirmation.yes)
      let result = try store.call(DeleteVolumes(names: names, force: force, snapshots: snapshots))
      // Nobody goes on with it where the store is free.
      if wait || store.isFree { try store.waitForDeletions(showing: common.progress) }
      return result
    }
    try show(result) { $0.text(isPlan: dryRun) }
  }

  private func plan(_ store: StoreAccess) throws -> DeletionResult {
    try store.call(DeleteVolumes(names: names, force: force, snapshots: snapshots, dryRun: true))
  }
}

extension DeletionResult {
  /// What is asked before it is done.
  fileprivate var question: String {
    let what = deleted.count <= 3 ? deleted.joined(separator: ", ") : HumanReadable.count(deleted.count, "name")
    return "Deleting \(what)" + (bytes.map { ", which gives back at least \(HumanReadable.bytes($0))" } ?? "")
  }

  fileprivate func text(isPlan: Bool) -> String {
    deleted.map { "\(isPlan ? "Would delete" : "Deleted") \($0.printable)\n" }.joined()
      + (bytes.map { "At least \(HumanReadable.exactBytes($0)) would come back\n" } ?? "")
  }
}

extension StoreAccess {
  /// Returns when no deleted volume holds space any more that can be given back.
  ///
  /// - Throws: where some keep theirs, since they are damaged.
  fileprivate func waitForDeletions(showing style: ProgressStyle) throws {
    var display = ProgressDisplay(style)
    defer { display.finish() }
    var most: UInt64 = 0
    while true {
      let left = try call(GetDeletions())
      most = max(most, left.mappedLeft)
      let work = WorkDone(phase: "giving back space", done: most - left.mappedLeft, total: most, unit: "bytes")
      let damaged = left.damaged ?? 0
      guard left.volumes > damaged else {
        display.finish(work)
        guard damaged > 0 else { return }
        throw Failure(
          "deleted; but a part of \(HumanReadable.count(damaged, "deleted volume")) cannot be read, so that up to "
            + "\(HumanReadable.bytes(left.mappedLeft)) stay in use; 'lacuna check' says more")
      }
      display.show(work)
      usleep(20_000)
    }
  }
}
