extension String {
  /// Whether both have the same bytes in UTF-8. `==` also takes those for equal that differ in their normalisation alone,
  /// which are two names to everybody else.
  public func hasSameBytes(as other: String) -> Bool { utf8.elementsEqual(other.utf8) }
}
