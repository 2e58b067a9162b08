internal import Bytes
internal import Extents

/// One volume of an open store, as its clients use it: reads, writes, zeroes and trims on its bytes. It keeps the engine open.
///
/// Thread safety: all operations may be called from any thread. Readers load the published view, and take no lock but, for
/// the time of a look-up, those of the caches of nodes and of checksums. Writers
/// put their data on the device outside every lock, then, under the lock of the volume's writers, append the record to the journal and
/// publish the view, so that both have the same order. A writer never holds that lock while
/// it waits for room in the journal, for blocks or for a checkpoint.
///
/// Each block changes whole or not at all; an operation on several blocks may be seen block by block.
package final class DiskVolume: Sendable {
  let engine: Engine
  let state: OpenVolume

  init(_ engine: Engine, _ state: OpenVolume) { (self.engine, self.state) = (engine, state) }

  /// The volume's number within the store.
  package var inode: UInt64 { state.inode }

  /// Its name, as messages say it.
  package var name: String { state.name }

  var blockSize: BlockSize { engine.blockSize }

  /// The volume's size in bytes.
  package var byteCount: UInt64 { state.byteCount }

  /// The unit of reading and writing that costs least, in bytes: a block.
  package var preferredByteCount: Int { blockSize.byteCount }

  /// What may be done with it.
  package var access: VolumeAccess { state.access }

  /// Whether something of it can be neither read nor merged: it is read-only then.
  package var isDamaged: Bool { state.isDamaged }

  /// Makes everything durable that completed before this call, on this volume and all others: one sync of the device.
  package func flush() throws(ExtentFSError) {
    let (access, isJournaled) = try state.withView { ($0.access, $0.isJournaled) }
    guard access != .deleted else { throw state.gone }
    // What is thrown away need not be durable.
    if isJournaled { try engine.flush() }
  }
}
