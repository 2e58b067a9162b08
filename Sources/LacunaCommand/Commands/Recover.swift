internal import ArgumentParser
internal import Lacuna

struct Recover: Verb {
  static let configuration = CommandConfiguration(
    abstract: "Go on from the older superblock: the newest is lost.",
    usage: "lacuna recover STORE [options]",
    discussion: """
      A store has two superblocks, written in turn. Where one is damaged, may have been the newest, and something that the other one
      references is damaged too, the store is only read: those blocks may be in use for something else since. This reads all
      metadata and data, says how much of it is damaged, and asks; then it continues from the older one, and what is damaged stays so.
      Names, sizes and snapshots that were changed last may be missing.

      Examples:
        lacuna recover s.lacuna
        lacuna recover s.lacuna --yes
      """.unwrapped)

  @OptionGroup var target: StoreArgument

  @OptionGroup var confirmation: YesOption

  @OptionGroup var common: CommonOptions

  func run() throws {
    guard let refusal = try refusalOfWriting() else {
      try show(RecoveryResult(recovered: false, findings: [])) { _ in "There is nothing to recover\n" }
      return
    }
    let found = try call(CheckStore(data: true), for: .reading)
    let findings = found.findings.filter { $0.kind != .superblock }
    try Confirmation.ask(
      "\(refusal.description); of what the older one references, 'lacuna check --data' has "
        + "\(HumanReadable.count(findings.count, "finding")), and going on from it leaves that so",
      isGiven: confirmation.yes)
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
