internal import ArgumentParser
internal import Lacuna

struct Recover: Verb {
  static let configuration = CommandConfiguration(
    abstract: "Go on from the older superblock: the newest is lost.",
    usage: "lacuna recover STORE [options]",
    discussion: """
      A store has two superblocks, written in turn. Where one is damaged and may have been the newest, the store is only read: the
      other one may lead to blocks that are in use for something else since. This reads all metadata and data that it leads to,
      and where all of it is right, goes on from there. Names, sizes and snapshots that were changed last may be missing; data
      that was flushed is in the journal. A store that needs it not is left alone.

      Examples:
        lacuna recover s.lacuna
        lacuna recover s.lacuna --yes
      """.unwrapped)

  @OptionGroup var target: StoreArgument

  @Flag(help: "Also where something of what it leads to is damaged, which stays so.")
  var force = false

  @OptionGroup var confirmation: YesOption

  @OptionGroup var common: CommonOptions

  func run() throws {
    guard let refusal = try refusalOfWriting() else {
      try show(RecoveryResult(recovered: false, findings: [])) { _ in "There is nothing to recover\n" }
      return
    }
    let found = try call(CheckStore(data: true), for: .reading)
    let findings = found.findings.filter { !$0.path.hasPrefix("superblock slot") }
    if !findings.isEmpty, !force {
      throw Failure(
        "what the older superblock leads to is damaged too (\(HumanReadable.count(findings.count, "finding")), see 'lacuna check "
          + "--data'), so that going back to it would keep that; --force does it all the same")
    }
    try Confirmation.ask("\(refusal.description); going back loses what was changed last", isGiven: confirmation.yes)
    try withStore(.recovering) { _ in }
    try show(RecoveryResult(recovered: true, findings: findings)) { _ in "Went back to the older superblock\n" }
  }

  /// Why nobody may write to the store, where that is for want of its newest superblock.
  private func refusalOfWriting() throws -> LacunaError? {
    do {
      try withStore(.writing) { _ in }
      return nil
    } catch let error as LacunaError where error.code == .olderSuperblock {
      return error
    }
  }
}

/// What was done, and what of the store is damaged besides.
private struct RecoveryResult: Encodable {
  var recovered: Bool
  var findings: [CheckResult.Finding]
}
