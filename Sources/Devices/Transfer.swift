package import SystemPackage

/// Repeats a transfer until all of `byteCount` bytes have moved, since the system may move fewer than it was asked to.
///
/// `step` gets the number of bytes moved so far and moves some of the rest. A step that moves nothing, which is how
/// `pread` reports the end of a file, is an error and never a reason to ask again.
///
/// This is the seam at which tests inject short transfers; the optimiser removes it.
///
/// - Throws: what `step` throws, and `EIO` where a step moved no byte or claims to have moved too many.
@inline(__always)
package func transferAll(_ byteCount: Int, step: (_ moved: Int) throws(Errno) -> Int) throws(Errno) {
  var moved = 0
  while moved < byteCount {
    let count = try step(moved)
    guard count > 0, count <= byteCount - moved else { throw .ioError }
    moved += count
  }
}
