import Glibc
import NBDTestSupport
import Testing

/// What is the same whether a store is free or served.
private enum Same {
  /// All of it, but for dates, and the store's folder.
  case text
  /// The names of facts, or the keys of JSON, in their order: what stands behind them changes from one look to the next.
  case names
}

/// One verb with its arguments, as it is run on two copies of one store.
private struct Step: CustomTestStringConvertible {
  var arguments: [String]
  var same = Same.text
  var status: Int32 = 0

  init(_ line: String, _ same: Same = .text, status: Int32 = 0) {
    arguments = line.split(separator: " ").map(String.init)
    self.same = same
    self.status = status
  }

  var testDescription: String { arguments.joined(separator: " ") }
}

/// The steps, each on what those before it left. Every verb that asks a store is among them.
private let steps: [Step] = [
  Step("info", .names), Step("info --json", .names), Step("info vm1"), Step("info vm1 --json"),
  Step("list"), Step("list --space"), Step("list --json"), Step("list --json --space vm"), Step("list other"),
  Step("create --volume vms/web1 --size 1.5G"), Step("create --volume vm3 --size 5M --quota 2M --json"),
  Step("create --volume vm4 --size 5M --read-only --reservation 1M"),
  Step("snapshot vm1@monday"), Step("snapshot vm1@tuesday vms/web1@tuesday --json"),
  Step("clone vm1@monday vm2"), Step("clone vm2 copies/of/vm2 --json"),
  Step("rename vm2 vm5"), Step("rename vm1@tuesday vm1@wednesday --json"),
  Step("resize vm5 +64M"), Step("resize vm5 100M --yes --json"), Step("resize vm5 --shrink -- -50M"),
  Step("set vm5 --quota 1G --reservation 10M"), Step("set vm5 --quota none --reservation none --read-only --json"),
  Step("set vm5 --no-read-only --default"), Step("set --no-default"),
  Step("set vm1 --default"), Step("set --limit 1G"), Step("set --limit none --json", .names),
  Step("map vm1"), Step("map vm1@monday --json"), Step("map vms/web1 --json"),
  Step("diff vm1@monday vm1"), Step("diff vm1@monday vm1@wednesday --json"),
  Step("diff vms/web1 vm1 --exit-code", status: 2),
  Step("diff vm1@monday vm1@wednesday --exit-code"),
  Step("list --type snapshot"), Step("list --type volume --space"), Step("list --type throwaway --json"),
  Step("check"), Step("check --data"), Step("check --json", .names),
  Step("dump 1 --json"), Step("dump 0", .names),
  Step("stats", .names), Step("stats --json", .names), Step("stats --prometheus", .names),
  Step("stats --watch --interval 0.01 --count 2 --json", .names),
  Step("rollback vm1@monday --yes"), Step("rollback vm1@wednesday --yes --json"),
  Step("delete vm1 --dry-run"), Step("delete vm1 --dry-run --snapshots"),
  Step("delete vm1@monday --yes --wait"), Step("delete vm1 --snapshots --yes --json --wait"),
  Step("list"), Step("info", .names), Step("check"), Step("trim --json", .names),
  Step("promote vm5+nobody vm6", status: 1),
]

@Suite struct `A verb on a free store and on a served one` {
  /// Steps that only look at a store whose server was killed.
  private static let looks: [Step] = [
    Step("diff vm1@a vm1 --json"), Step("diff vm1@a vm1 --exit-code", status: 2), Step("diff vm1 vm1@a"),
    Step("map vm1 --json"), Step("map vm1@a"), Step("list --space --json"), Step("info vm1 --json"),
    Step("info", .names), Step("check"), Step("check --data"),
  ]

  @Test func `says the same`() throws {
    try PrivateDirectory.run { directory in
      let template = directory.file("template")
      try Lab.run(.free) { lab in
        try lab.write("vm1", [(0, 300_000, 1), (1 << 20, 65536, 2), (60 << 20, 4096, 3)])
        #expect(rename(lab.store, template) == 0)
      }
      try compare(steps, template)
    }
  }

  @Test func `says the same of a store whose server was killed`() throws {
    try PrivateDirectory.run { directory in
      let template = directory.file("template")
      try Lab.run(.free) { lab in
        try lab.serve { server in
          let client = try NBDClient(socketPath: server.socketPath, exportName: "vm1")
          try client.write([UInt8](repeating: 1, count: 65536), at: 0)
          try client.flush()
          try lab.run(["snapshot", "vm1@a"]).succeeded()
          try client.write([UInt8](repeating: 2, count: 131_072), at: 65536)
          try client.zero(4096, at: 0)
          try client.flush()
          // As the file is now, so it is when the server is killed.
          #expect(try FinishedCommand.run(["cp", "--sparse=always", lab.store, template]).status == .exited(0))
          try client.disconnect()
        }
      }
      try compare(Self.looks, template)
      try Lab.run(.free, copying: template) { lab in
        let rows = try lab.run(["diff", "vm1@a", "vm1"]).succeeded().standardOutput.split(separator: "\n").dropFirst()
        #expect(rows.map { $0.split(separator: " ").last } == ["zero", "data"], "\(rows)")
      }
    }
  }

  private func compare(_ steps: [Step], _ template: String) throws {
    var outcomes: [Way: [FinishedCommand]] = [:]
    for way in Way.allCases {
      try Lab.run(way, copying: template) { lab in
        outcomes[way] = try steps.map { step in comparable(try lab.run(step.arguments), step, lab) }
      }
    }
    for (index, step) in steps.enumerated() {
      guard let free = outcomes[.free]?[index], let served = outcomes[.served]?[index] else { continue }
      let isRight =
        free.status == .exited(step.status) && (step.status == 1) == free.standardOutput.isEmpty
        && (step.status == 1) == !free.standardError.isEmpty
      #expect(isRight, "\(step): \(free.status) \(free.standardError)\(free.standardOutput)")
      let isSame =
        free.status == served.status && free.standardOutput == served.standardOutput
        && free.standardError == served.standardError
      #expect(
        isSame,
        """
        \(step):
        \(free.status) \(free.standardError)\(free.standardOutput)
        \(served.status) \(served.standardError)\(served.standardOutput)
        """)
    }
  }

  private func comparable(_ finished: FinishedCommand, _ step: Step, _ lab: Lab) -> FinishedCommand {
    var result = finished
    result.standardOutput = comparable(finished.standardOutput, step.same, lab)
    result.standardError = comparable(finished.standardError, .text, lab)
    return result
  }

  private func comparable(_ text: String, _ same: Same, _ lab: Lab) -> String {
    let text = text.replacing(lab.directory.path, with: "FOLDER")
      .replacing(/\d{4}-\d\d-\d\d \d\d:\d\d:\d\d/, with: "DATE")
      .replacing(/"created" : \d+/, with: "\"created\" : SECONDS")
    guard same == .names else { return text }
    return text.split(separator: "\n").flatMap(names).filter { $0 != "served by" && $0 != "pid" }.joined(
      separator: "\n")
  }

  /// The keys in a line of JSON, a series of Prometheus' format with its labels, or what is before a colon.
  private func names(in line: Substring) -> [Substring] {
    let keys = line.matches(of: /"(\w+)" ?:/).map(\.1)
    if !keys.isEmpty { return keys }
    if line.hasPrefix("lacuna_"), let end = line.lastIndex(of: " ") { return [line[..<end]] }
    if line.hasPrefix("#") { return [line] }
    return line.firstIndex(of: ":").map { [line[..<$0]] } ?? []
  }
}
