import BlockStores
import LacunaTestSupport
import Testing

/// Long random tests of files against flat arrays.
@Suite(.slow) struct BlockFileModelTests {
  @Test(arguments: FileStores.all, [false, true])
  func `random operations on files agree with flat arrays and lose no block`(
    kind: FileStores.Kind, overwritesInPlace: Bool
  ) throws {
    try withSeededGenerator { generator in try run(kind.make(100), overwritesInPlace, generator) }
  }

  private func run(_ store: some FileStore, _ overwritesInPlace: Bool, _ generator: SeededGenerator) throws {
    var workload = try FileWorkload(
      store, byteCountMax: 48 * 512, overwritesInPlace: overwritesInPlace, generator)
    try workload.run(overwritesInPlace ? 50_000 : 100_000, checkInterval: 250)
    try workload.finish()
  }
}
