internal import ArgumentParser
internal import Lacuna

struct Diff: Verb {
  static let configuration = CommandConfiguration(
    abstract: "Show where two volumes or snapshots may differ.",
    usage: "lacuna diff STORE A B [options]",
    discussion: """
      Shows what became data and what became zeroes from A to B. It costs what changed, not what there is: it compares where
      blocks are and not what is in them, so what was written anew with the same bytes is shown as well. Clients get the same
      as the block status of the export VOLUME@A..B.

      Examples:
        lacuna diff s.lacuna vm1@monday vm1@tuesday
        lacuna diff s.lacuna vm1@monday vm1 --exit-code > changes
      """.unwrapped)

  @OptionGroup var target: StoreArgument

  @Argument(help: "The older one.", completion: .volumeNames)
  var a: String

  @Argument(help: "The newer one.", completion: .volumeNames)
  var b: String

  @Flag(help: "End with exit code 2 where there is anything to show.")
  var exitCode = false

  @OptionGroup var common: CommonOptions

  func run() throws {
    let differ = try withStore(.reading) { store in
      var rows = RowWriter(
        json: common.json, open: "{\"extents\": [", close: "]}\n", title: HexTable.row(["Offset", "Length", "Kind"]))
      var next: UInt64? = 0
      while let offset = next {
        let answer = try store.call(DiffVolumes(from: a, to: b, offset: offset))
        for extent in answer.extents {
          try rows.add(extent) {
            HexTable.row([HexTable.hex(extent.offset), HexTable.hex(extent.length), extent.kind.rawValue])
          }
        }
        next = answer.next
      }
      try rows.finish()
      return rows.count > 0
    }
    if differ && exitCode { throw ExitStatus.found }
  }
}
