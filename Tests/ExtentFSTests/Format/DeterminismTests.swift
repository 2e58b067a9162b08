import ExtentFS
import Foundation
import LacunaTestSupport
import Testing

@Suite(.slow) struct DeterminismTests {
  /// Each store is made by a process of its own, because sets and dictionaries have another order in each.
  @Test func `the same operations make the same store, byte for byte`() async throws {
    let directory = FileManager.default.temporaryDirectory.appendingPathComponent("lacuna-\(UUID().uuidString)").path
    try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: false)
    defer { try? FileManager.default.removeItem(atPath: directory) }
    for name in ["/first", "/second"] {
      await #expect(processExitsWith: .success) { [path = directory + name as String] in
        var generator = SeededGenerator(seed: 20)
        var store = try FileStoreUnderTest(making: path, blockByteCount: 1024, limit: 12 << 20)
        for number in 0..<6 { try store.addVolume("disk\(number)", byteCount: 400_000 + number * 1000) }
        for _ in 0..<2000 { try store.step(&generator) }
      }
    }
    let stores = try ["/first", "/second"].map { try Data(contentsOf: URL(fileURLWithPath: directory + $0)) }
    #expect(stores[0].count > 1 << 20)
    #expect(stores[0] == stores[1])
  }
}
