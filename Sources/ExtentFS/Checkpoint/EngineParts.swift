internal import Devices

/// What recovery hands to a new engine.
struct EngineParts {
  var device: any BlockDevice
  var superblock: Superblock
  var slot: Int
  var nodes: NodeCache
  var space: SpaceMap
  var checksums: ChecksumTable
  var spaceTree: SpaceTree
  var health: EngineHealth
  var log: EngineLog
  var journal: JournalRing
  var damage: DamageRegister
  var strayChanges: [UInt64: Overlay]
  var mergesJournal: Bool
  var carryByteCountMax: UInt64
}
