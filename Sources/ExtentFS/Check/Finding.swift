/// One thing that a check found wrong.
package struct Finding: Sendable, Equatable, CustomStringConvertible {
  /// What is wrong, for programs: the raw values are in the results of `check` (docs/control.md) and never change.
  package enum Kind: String, Sendable, CaseIterable {
    /// A slot holds no valid superblock.
    case superblock
    /// Metadata that the device does not give, with a wrong checksum, or with invalid values.
    case metadata
    /// A stored number differs from what was found.
    case number
    /// A name without an inode, an inode without a name, or a name that no volume may have.
    case name
    /// Something is stored that needs a feature which the store does not have.
    case feature
    /// An extent outside its volume or the store, or on blocks that something else uses.
    case extent
    /// A block has another number of references than the tree of shared runs says, or the tree contradicts itself.
    case references
    /// A bitmap marks a block wrongly as used or as free.
    case bitmap
    /// Data has another checksum than the one that was stored.
    case data
    /// Bytes past a volume's end are not zero.
    case tail
    /// The open store met it since it was opened, and the check did not.
    case earlier
    /// There are more findings than the report holds.
    case more
  }

  package var kind: Kind
  /// What it is about, such as `volume 'vm1' (inode 1) > block 4711`; empty for the store as a whole.
  package var path: String
  package var text: String
  /// The block of the device that could not be read, where it is about one.
  package var block: UInt64?

  init(_ kind: Kind, _ path: String, _ text: String, block: UInt64? = nil) {
    (self.kind, self.path, self.text, self.block) = (kind, path, text, block)
  }

  package var description: String { path.isEmpty ? text : "\(path): \(text)" }
}
