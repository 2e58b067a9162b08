// A store on disk: makes one at the path given, writes, takes a snapshot, writes more, closes, and opens it again.
import Lacuna
import Logging

extension Volume {
  func write(_ text: String, at offset: UInt64) throws {
    try Array(text.utf8).withUnsafeBytes { try write($0, at: offset, durably: false) }
  }

  func text(at offset: UInt64, count: Int) throws -> String {
    var bytes = [UInt8](repeating: 0, count: count)
    try bytes.withUnsafeMutableBytes { try read(into: $0, at: offset) }
    return String(decoding: bytes, as: UTF8.self)
  }
}

var options = StoreOptions()
options.path = CommandLine.arguments[1]
options.volumeName = "vm1"
options.byteCount = 1 << 30
options.logger = Logger(label: "sample")
options.logger.logLevel = .error

// 1. Made where nothing is there.
let store = try Store(options)
try store.startBackgroundWork()
let volume = try store.openVolume(named: "vm1")
try volume.write("before", at: 1 << 20)
let snapshots = try store.call(CreateSnapshots(names: ["vm1@monday"]))
print("snapshots: \(snapshots.snapshots.map(\.name))")
try volume.write("after ", at: 1 << 20)
try volume.flush()

// 2. The snapshot keeps what the volume had.
let monday = try store.openVolume(named: "vm1@monday")
print("vm1: \(try volume.text(at: 1 << 20, count: 6)), vm1@monday: \(try monday.text(at: 1 << 20, count: 6))")
do {
  try monday.write("x", at: 0)
} catch let error as LacunaError {
  print("\(error.code): \(error)")
}
try volume.forEachExtent(in: 0..<2 << 20) { extent throws(LacunaError) in
  print("\(extent.byteCount) bytes from \(extent.offset) on: \(extent.kind)")
  return true
}

// 3. Closed, it is free for others, whoever still refers to it.
try store.close()
do {
  _ = try volume.text(at: 0, count: 1)
} catch let error as LacunaError {
  print("\(error.code): \(error)")
}

// 4. Opened again.
options.waitsForLock = false
let again = try Store(options)
let info = try again.call(GetVolumeInfo(name: "vm1", space: true))
print("vm1: \(info.size) bytes, \(info.mapped) mapped, \(info.space?.shared ?? 0) of them shared")
print("vm1: \(try again.openVolume(named: "").text(at: 1 << 20, count: 6))")
print("findings: \(try again.call(CheckStore(data: true)).findings.count), version \(LacunaVersion.current)")
try again.close()
