import Lacuna

var options = StoreOptions()
options.path = "s.lacuna"
options.volumeName = "vm1"
options.byteCount = 1 << 30

let store = try Store(options)
try store.startBackgroundWork()
let volume = try store.openVolume(named: "vm1")
try Array("before".utf8).withUnsafeBytes { try volume.write($0, at: 0, durably: true) }
_ = try store.call(CreateSnapshots(names: ["vm1@monday"]))
try Array("after ".utf8).withUnsafeBytes { try volume.write($0, at: 0, durably: true) }

var bytes = [UInt8](repeating: 0, count: 6)
let monday = try store.openVolume(named: "vm1@monday")
try bytes.withUnsafeMutableBytes { try monday.read(into: $0, at: 0) }
print(String(decoding: bytes, as: UTF8.self))
try store.close()
