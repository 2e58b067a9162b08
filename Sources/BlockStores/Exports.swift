// What the signatures of this module name of the modules below, so that `import BlockStores` is enough to name them:
// `BlockSize`, `BlockLocation`, `RangeContent` and `PhysicalRun`. Other declarations there are public as well, for the optimiser
// (docs/design.md, section 2), and no part of the product's promise.
@_exported public import Bytes
@_exported public import Extents
