// What the signatures of this module name of the modules below, so that `import BlockStores` is enough to name them:
// `BlockSize`, `BlockLocation`, `RangeContent` and `PhysicalRun`. All else in those modules has access level `package`.
@_exported public import Bytes
@_exported public import Extents
