internal import ArgumentParser
internal import Lacuna

struct Check: Verb {
  static let configuration = CommandConfiguration(
    abstract: "Look for everything that is wrong in a store.",
    usage: "lacuna check STORE [options]",
    discussion: """
      Reads all metadata and compares every account of space; --data reads all data too. It changes nothing, and may run
      while the store is served. Each finding is a line with the path to it. A line that begins with "note:" is none: it tells of
      what could be better about where the store is. Exit codes: 0 nothing is wrong, 2 something is, 1 the check itself failed.

      Examples:
        lacuna check s.lacuna
        lacuna check s.lacuna --data --json
      """.unwrapped)

  @OptionGroup var target: StoreArgument

  @Flag(help: "Read all data too, and compare its checksums.")
  var data = false

  @OptionGroup var common: CommonOptions

  func advice(on error: LacunaError) -> String? {
    // Which would be to run what has just failed.
    error.code == .damaged ? nil : error.advice(store: target.store)
  }

  func run() throws {
    let result = try call(CheckStore(data: data), for: .reading)
    try show(result, \.text)
    if !result.findings.isEmpty { throw ExitStatus.found }
  }
}

extension CheckResult {
  fileprivate var text: String {
    let lines =
      findings.map { ($0.path.isEmpty ? $0.text : "\($0.path): \($0.text)").visible + "\n" }.joined()
      + (notes ?? []).map { "note: \($0.visible)\n" }.joined()
    let seen =
      "\(HumanReadable.count(volumes, "volume or snapshot", "volumes and snapshots")), "
      + HumanReadable.count(blocks, "block")
    guard findings.isEmpty else {
      return lines + "\(HumanReadable.count(findings.count, "finding")) in \(seen)\n"
    }
    var facts = FactSheet()
    facts.add("exclusive data", HumanReadable.exactBytes(accounts.exclusive))
    facts.add("shared data", HumanReadable.exactBytes(accounts.shared))
    facts.add("nodes", HumanReadable.exactBytes(accounts.nodes))
    facts.add("fixed", HumanReadable.exactBytes(accounts.fixed))
    return lines + "Nothing is wrong in \(seen)\n" + facts.text
  }
}
