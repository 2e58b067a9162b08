internal import ArgumentParser
internal import Lacuna

struct List: Verb {
  static let configuration = CommandConfiguration(
    abstract: "List volumes and snapshots.",
    usage: "lacuna list STORE [PREFIX] [options]",
    discussion: """
      The columns EXCLUSIVE (what would come back if it were deleted) and SHARED need --space, which reads the maps of all
      that are listed.

      Throwaways, which exist while their clients are connected, are listed with --all or --type throwaway.

      Examples:
        lacuna list s.lacuna
        lacuna list s.lacuna --all --space
        lacuna list s.lacuna vms/ --type snapshot --space
      """.unwrapped)

  @OptionGroup var target: StoreArgument

  @Argument(help: "Only names that begin so.", completion: .volumeNames)
  var prefix: String?

  @Option(
    name: [.short, .long], help: ArgumentHelp("Only these: volume, snapshot or throwaway.", valueName: "type"),
    completion: .list(VolumeKind.allCases.map(\.rawValue)),
    transform: readKind)
  var type: VolumeKind?

  @Flag(name: [.short, .long], help: "Also throwaways.")
  var all = false

  @Flag(name: [.short, .long], help: "Show also whose space it is.")
  var space = false

  @OptionGroup var common: CommonOptions

  func validate() throws {
    if all && type != nil { throw ValidationError("--all and --type exclude each other") }
  }

  func run() throws {
    let (volumes, damage) = try withStore(.reading) { store in
      // The list first, which finds out what of the catalog cannot be read.
      var volumes = try store.volumes(prefix: prefix, kind: type, space: space)
      if all {
        volumes += try store.volumes(prefix: prefix, kind: .throwaway, space: space)
        volumes.sort { $0.name.utf8.lexicographicallyPrecedes($1.name.utf8) }
      }
      return (volumes, try store.call(GetStoreInfo()).damage ?? [])
    }
    try show(VolumeList(volumes: volumes, next: nil)) { $0.table(withSpace: space) }
    let unread = damage.filter { $0.inCatalog == true }
    guard let first = unread.first else { return }
    throw Failure("the list may lack volumes or snapshots: \(first.part): \(first.text)")
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
