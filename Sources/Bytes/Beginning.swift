extension String {
  /// The first scalars of a name that others gave, for messages and for names made of it: a character may be of any length, with
  /// thousands of marks on one letter.
  public func beginning(_ scalarCount: Int) -> String { String(unicodeScalars.prefix(scalarCount)) }
}
