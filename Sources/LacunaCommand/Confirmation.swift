/// The question before data is destroyed.
enum Confirmation {
  /// Returns where `question` is answered with yes, or `isGiven` beforehand.
  ///
  /// - Parameter question: what will be destroyed, without the question mark.
  /// - Throws: `Failure` with `.notConfirmed` for any other answer, and where nobody is there to be asked.
  static func ask(_ question: String, isGiven: Bool) throws {
    if isGiven { return }
    guard Terminal.canAsk else {
      throw Failure(
        "\(question); there is no terminal to ask for a yes on, so give --yes if that is meant",
        status: .notConfirmed)
    }
    Terminal.writeMessage("\(question.visible). This cannot be undone. Continue? [y/N] ")
    let answer = Terminal.readAnswer()?.lowercased() ?? ""
    guard answer == "y" || answer == "yes" else { throw Failure("nothing was changed", status: .notConfirmed) }
  }
}
