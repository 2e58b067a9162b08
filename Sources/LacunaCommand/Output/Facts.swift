internal import Lacuna

extension StoreInfo {
  /// For people, in lines.
  var text: String {
    var facts = FactSheet()
    facts.add("store", path)
    facts.add("uuid", uuid)
    facts.add("created", HumanReadable.date(created))
    facts.add("size", HumanReadable.exactBytes(size))
    facts.add("used", HumanReadable.exactBytes(used))
    facts.add("free", HumanReadable.exactBytes(free))
    facts.add("limit", limitText)
    facts.add("block size", HumanReadable.exactBytes(blockSize))
    facts.add("journal", HumanReadable.exactBytes(journalSize))
    facts.add("volumes", "\(volumes)")
    facts.add("snapshots", "\(snapshots)")
    facts.add("throwaways", throwaways == 0 ? nil : "\(throwaways)")
    facts.add("being deleted", deleted == 0 ? nil : "\(deleted)")
    facts.add("default volume", defaultVolume ?? "none")
    facts.add("features", features.isEmpty ? "none" : features.joined(separator: ", "))
    facts.add("checkpoints", "\(generation)")
    facts.add("version", version)
    facts.add("read-only", readOnly ? "yes" : nil)
    facts.add("served by", pid.map { "process \($0)" })
    for part in damage ?? [] { facts.add("damaged", "\(part.part.visible): \(part.text.visible)") }
    return facts.text
  }

  /// What the file does not grow beyond; nil where only its host limits it.
  private var limitText: String? {
    guard let limit else { return nil }
    let text = HumanReadable.exactBytes(limit)
    if storedLimit == limit { return text }
    return "\(text) while this process serves it; the store's own limit: "
      + (storedLimit.map(HumanReadable.exactBytes) ?? "none")
  }

  /// What `set` can change, for people, in lines.
  var settings: String {
    var facts = FactSheet()
    facts.add("store", path)
    facts.add("limit", limitText ?? "none")
    if let limit, size > limit { facts.add("size", "\(HumanReadable.exactBytes(size)), and it does not grow") }
    facts.add("default volume", defaultVolume ?? "none")
    return facts.text
  }
}

extension VolumeInfo {
  /// For people, in lines.
  var text: String {
    var facts = FactSheet()
    facts.add("name", name)
    facts.add("kind", kind.rawValue)
    facts.add("size", HumanReadable.exactBytes(size))
    facts.add("mapped", HumanReadable.exactBytes(mapped))
    if let space {
      facts.add("exclusive", HumanReadable.exactBytes(space.exclusive))
      facts.add("shared", HumanReadable.exactBytes(space.shared))
      facts.add("nodes", HumanReadable.exactBytes(space.nodes))
    }
    facts.add("unwritten", reserved == 0 ? nil : HumanReadable.exactBytes(reserved))
    facts.add("quota", quotaText)
    facts.add("reservation", reservation.map(HumanReadable.exactBytes))
    facts.add("read-only", readOnly ? "yes" : "no")
    facts.add("created", HumanReadable.date(created))
    facts.add("origin", origin)
    facts.add("clients", "\(clients)")
    facts.add("default", isDefault ? "yes" : "no")
    facts.add("damaged", damage?.visible)
    return facts.text
  }

  private var quotaText: String? {
    quota.map {
      HumanReadable.exactBytes($0)
        + (isOverQuota ? ", which it exceeds: nothing more can be written to new places" : "")
    }
  }

  /// What `set` can change, for people, in lines.
  var settings: String {
    var facts = FactSheet()
    facts.add("name", name)
    facts.add("read-only", readOnly ? "yes" : "no")
    facts.add("quota", quotaText ?? "none")
    facts.add("reservation", reservation.map(HumanReadable.exactBytes) ?? "none")
    facts.add("default", isDefault ? "yes" : "no")
    return facts.text
  }
}

extension VolumeList {
  /// For people, in columns.
  func table(withSpace: Bool) -> String {
    var table = Table(
      [("NAME", .left), ("SIZE", .right), ("MAPPED", .right)]
        + (withSpace ? [("EXCLUSIVE", .right), ("SHARED", .right)] : [])
        + [("CLIENTS", .right), ("FLAGS", .left), ("CREATED", .left), ("ORIGIN", .left)])
    for volume in volumes {
      let space =
        volume.space.map { [HumanReadable.bytes($0.exclusive), HumanReadable.bytes($0.shared)] } ?? ["-", "-"]
      let flags = [
        volume.kind == .throwaway ? "throwaway" : nil, volume.isDefault ? "default" : nil,
        volume.readOnly && volume.kind != .snapshot ? "read-only" : nil,
        volume.isOverQuota ? "over-quota" : nil, volume.damage == nil ? nil : "damaged",
      ]
      table.add(
        [volume.name, HumanReadable.bytes(volume.size), HumanReadable.bytes(volume.mapped)]
          + (withSpace ? space : [])
          + ["\(volume.clients)", flags.compactMap(\.self).joined(separator: ","), HumanReadable.date(volume.created)]
          + [volume.origin ?? "-"])
    }
    return table.text
  }
}
