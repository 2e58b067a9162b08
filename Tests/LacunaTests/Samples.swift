import FoundationEssentials
import LacunaTestSupport

@testable import Lacuna

/// One value of each method and of each result, with all that is optional set.
enum Samples {
  static let methods: [any StoreMethod] = [
    Hello(version: 1), GetStoreInfo(), SetStore(defaultVolume: "vm1"), CheckStore(data: true), GetStatistics(),
    DumpBlock(block: .max), GetDeletions(), TrimStore(), StopServing(),
    ListVolumes(prefix: "vms/", kind: .snapshot, space: true, after: "vms/a", limit: 7),
    GetVolumeInfo(name: "vm1@a", space: true),
    CreateVolume(name: "vm1", size: UInt64(Int64.max), readOnly: true, quota: 1, reservation: .max),
    DeleteVolumes(names: ["a", "b@c"], force: true, snapshots: true, dryRun: true, wait: true),
    RenameVolume(name: "a", to: "b"),
    ResizeVolume(name: "a", size: 1, from: 2, shrink: true, force: true),
    SetVolume(name: "a", readOnly: false, quota: 0, reservation: 0, isDefault: true, force: true),
    CloneVolume(source: "a@b", name: "c"),
    RollBackVolume(snapshot: "a@b", force: true), PromoteVolume(name: "a+x", to: "b"),
    DiffVolumes(from: "a@b", to: "a", offset: 4096, limit: 3), MapVolume(name: "a", offset: 1, limit: 1),
    CreateSnapshots(names: ["a@b", "ä\n\"@c"]),
  ]

  private static let volume = VolumeInfo(
    name: "vm1@a", kind: .snapshot, size: .max, mapped: 1, reserved: 2, readOnly: true, created: 3, origin: "vm1",
    quota: 4,
    reservation: 5, clients: 6, isDefault: true, space: VolumeInfo.Space(exclusive: 7, shared: 8, nodes: 9), damage: "x"
  )

  static func forEachResult(_ body: (any Codable & Hashable) throws -> Void) rethrows {
    try body(Hello.Result(version: 1, server: "x"))
    try body(StopServing.Result(pid: 1, flushFailure: "x"))
    try body(
      StoreInfo(
        path: "/a/b", uuid: "u", version: "1", protocolVersion: 1, blockSize: 4096, journalSize: 65536, size: .max,
        used: 1, free: 2, limit: 3, storedLimit: 4, created: 4, generation: 5, features: ["snapshots"], volumes: 6,
        snapshots: 7,
        throwaways: 8, deleted: 9, defaultVolume: "vm1", pid: 10, readOnly: true,
        damage: [StoreInfo.Damage(part: "a", text: "b")]))
    try body(
      CheckResult(
        findings: [CheckResult.Finding(kind: .superblock, path: "a", text: "b")], volumes: 1, blocks: 2,
        accounts: CheckResult.Accounts(nodes: 1, exclusive: 2, shared: 3, fixed: 4)))
    try body(BlockDump(block: 1, kind: "data", text: "a\nb", fields: [BlockDump.Field(name: "a", value: "b")]))
    try body(Deletions(volumes: 1, mappedLeft: 2, damaged: 3))
    try body(TrimResult(bytes: .max, exact: true))
    try body(volume)
    try body(VolumeList(volumes: [volume], next: "vm1"))
    try body(DeletionResult(deleted: ["a"], bytes: 1))
    try body(DeletionResult(deleted: ["a"], damaged: [.init(name: "a", text: "block 7", bytes: 4096)]))
    try body(SnapshotList(snapshots: [volume]))
    try body(
      VolumeMap(extents: [VolumeMap.Extent(offset: 0, length: 1, kind: .zero, physical: .max)], next: 4096))
    try body(VolumeDiff(extents: [VolumeDiff.Extent(offset: 0, length: 1, kind: .zero)], next: nil))
    var statistics = StoreStatistics()
    statistics.reads = StoreStatistics.Operations(
      count: 1, bytes: 2, errors: 3, latency: StoreStatistics.Latency(seconds: 0.25))
    statistics.seconds = 1.5
    try body(statistics)
  }

  static func roundTrip<Value: Codable & Hashable>(_ value: Value) throws {
    let back = try recoded(value)
    guard back == value else { throw CheckFailure("\(value) came back as \(back)") }
  }

  static func recoded<Value: Codable>(_ value: Value) throws -> Value {
    try JSONDecoder().decode(Value.self, from: JSONEncoder().encode(value))
  }

  /// Parses any bytes, and looks that every refusal can be answered.
  static func checkParsing(_ line: [UInt8]) throws {
    switch ControlMessage(line, limits: ControlLimits()) {
    case .refused(let error): try checkAnswer(ControlAnswer.error(error, to: .null))
    case .requests(let requests, _):
      for case .refused(let id, let error) in requests { try checkAnswer(ControlAnswer.error(error, to: id ?? .null)) }
    }
  }

  private static func checkAnswer(_ line: [UInt8]) throws {
    struct Answer: Decodable {
      var jsonrpc: String
      var error: RPCError
    }
    let answer = try JSONDecoder().decode(Answer.self, from: Data(line))
    guard answer.jsonrpc == "2.0", answer.error.message.utf8.count < 1000, line.count < 2000,
      line.firstIndex(of: UInt8(ascii: "\n")) == line.count - 1
    else { throw CheckFailure("a bad answer: \(String(decoding: line, as: UTF8.self))") }
  }
}

extension ControlAnswer {
  static func request(any method: any StoreMethod, id: RequestID) -> [UInt8] { request(method, id: id) }
}
