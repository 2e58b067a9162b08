internal import ArgumentParser
internal import Lacuna

struct Map: Verb {
  static let configuration = CommandConfiguration(
    abstract: "Show what lies where in a volume or a snapshot.",
    usage: "lacuna map STORE NAME [options]",
    discussion: """
      As 'qemu-img map' does: a table, or with --json an array that programs for qemu-img's understand. Data lies in the store
      at "Mapped to", zero is zeroes that have their space, a hole takes none.

      Examples:
        lacuna map s.lacuna vm1
        lacuna map s.lacuna vm1@monday --json | jq 'map(select(.data).length) | add'
      """.unwrapped)

  @OptionGroup var target: StoreArgument

  @Argument(help: "The volume or snapshot.", completion: .volumeNames)
  var name: String

  @OptionGroup var common: CommonOptions

  func run() throws {
    try withStore(.reading) { store in
      var rows = RowWriter(
        json: common.json, open: "[", close: "]\n",
        title: HexTable.row(["Offset", "Length", "Kind", "Mapped to"]))
      var next: UInt64? = 0
      while let offset = next {
        let answer = try store.call(MapVolume(name: name, offset: offset))
        for extent in answer.extents {
          try rows.add(MapRow(extent)) {
            let place = extent.physical.map(HexTable.hex) ?? ""
            return HexTable.row([HexTable.hex(extent.offset), HexTable.hex(extent.length), extent.kind.rawValue, place])
          }
        }
        next = answer.next
      }
      try rows.finish()
    }
  }
}

/// An extent as `qemu-img map --output=json` shows it.
struct MapRow: Encodable {
  var start: UInt64
  var length: UInt64
  /// How deep in a chain of images it lies; there are no chains here.
  var depth = 0
  var present: Bool
  var zero: Bool
  var data: Bool
  var compressed = false
  /// Where it lies in the store.
  var offset: UInt64?

  init(_ extent: VolumeMap.Extent) {
    start = extent.offset
    length = extent.length
    present = extent.kind != .hole
    zero = extent.kind != .data
    data = extent.kind == .data
    offset = extent.physical
  }
}
