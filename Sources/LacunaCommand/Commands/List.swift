internal import ArgumentParser
internal import Lacuna

struct List: Verb {
  static let configuration = CommandConfiguration(
    abstract: "List volumes and snapshots.",
    usage: "lacuna list STORE [PREFIX] [options]",
    discussion: """
      The columns EXCLUSIVE (what would come back if it were deleted) and SHARED need --space, which reads the maps of all
      that are listed.

      Examples:
        lacuna list s.lacuna
        lacuna list s.lacuna vms/ --type snapshot --space
      """)

  @OptionGroup var target: StoreArgument

  @Argument(help: "Only names that begin so.", completion: .volumeNames)
  var prefix: String?

  @Option(
    name: [.short, .long], help: ArgumentHelp("Only these: volume, snapshot or throwaway.", valueName: "type"),
    completion: .list(VolumeKind.allCases.map(\.rawValue)),
    transform: readKind)
  var type: VolumeKind?

  @Flag(name: [.short, .long], help: "Show also whose space it is.")
  var space = false

  @OptionGroup var common: CommonOptions

  func run() throws {
    let volumes = try withStore(.reading) { try $0.volumes(prefix: prefix, kind: type, space: space) }
    try show(VolumeList(volumes: volumes, next: nil)) { $0.table(withSpace: space) }
  }
}

@Sendable private func readKind(_ text: String) throws -> VolumeKind {
  guard let kind = VolumeKind(rawValue: text) else {
    throw ValidationError("there is no type '\(text)'; the types are volume, snapshot and throwaway")
  }
  return kind
}

extension StoreAccess {
  /// All volumes that match, by as many calls as they need.
  func volumes(prefix: String? = nil, kind: VolumeKind? = nil, space: Bool = false) throws -> [VolumeInfo] {
    var all: [VolumeInfo] = []
    var next: String?
    repeat {
      let answer = try call(ListVolumes(prefix: prefix, kind: kind, space: space, after: next))
      all += answer.volumes
      next = answer.next
    } while next != nil
    return all
  }
}
