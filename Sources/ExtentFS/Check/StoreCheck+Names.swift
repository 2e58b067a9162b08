extension StoreCheck {
  /// Each name leads to an inode, and each inode but transient ones has one name, which is found where it is looked for.
  func checkNames() {
    var named: [UInt64: UInt64] = [:]
    for (key, inode) in names.sorted(by: { $0.key < $1.key }) {
      guard let record = inodes[inode] else {
        report.note(.name, "", "the name at key \(key) references inode \(inode), which does not exist")
        continue
      }
      let label = record.label(inode)
      if record.isTransient { report.note(.name, label, "a name references it, at key \(key)") }
      if let other = named.updateValue(key, forKey: inode) {
        report.note(.name, label, "two names reference it, at keys \(other) and \(key)")
      }
      var probe = NameHash.key(of: record.name)
      while probe != key, names[probe] != nil { probe &+= 1 }
      if probe != key { report.note(.name, label, "its name is at key \(key), where no look-up finds it") }
    }
    for (inode, record) in inodes.sorted(by: { $0.key < $1.key }) {
      if named[inode] == nil, !record.isTransient { report.note(.name, record.label(inode), "no name references it") }
      checkFeature(inode, record)
      checkText(inode, record)
    }
  }

  /// A name that new volumes could not have may be one of before there were rules, which is no fault. Others were made to deceive.
  private func checkText(_ inode: UInt64, _ record: InodeRecord) {
    // One that is empty is told as that.
    guard !record.isTransient, !record.name.isEmpty else { return }
    if let forgery = VolumeName.forgery(of: record.name) {
      report.note(.name, record.label(inode), "its name \(forgery)")
    } else if !VolumeName.isForNew(record.name) {
      report.notes.append(
        "\(record.label(inode)): a new one could not have this name, and shells do not complete it; 'lacuna rename' gives it another"
      )
    }
  }

  /// What an inode has by the feature "snapshots", and only by it.
  private func checkFeature(_ inode: UInt64, _ record: InodeRecord) {
    let label = record.label(inode)
    guard superblock.has(.snapshots) else {
      if record.isTransient || record.kind != .volume || record.quotaBlocks > 0 || record.reservationBlocks > 0 {
        report.note(.feature, label, "needs a feature that the store lacks")
      }
      return
    }
    guard !record.isTransient else { return }
    if record.name.isEmpty { report.note(.name, label, "has an empty name") }
    let parts = record.name.utf8.split(separator: UInt8(ascii: "@"), omittingEmptySubsequences: false)
    switch record.kind {
    case .snapshot where parts.count != 2 || parts.contains { $0.isEmpty }:
      report.note(.name, label, "is a snapshot, and its name is not that of one")
    case .volume where parts.count > 1:
      report.note(.name, label, "is a volume, and its name is that of a snapshot")
    default: break
    }
  }
}
