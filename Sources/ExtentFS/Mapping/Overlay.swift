package import Extents

/// The changes of one volume since a checkpoint: logical blocks to where they are now, holes included. Gaps are as the tree below says.
package typealias Overlay = RunMap<BlockLocation>
