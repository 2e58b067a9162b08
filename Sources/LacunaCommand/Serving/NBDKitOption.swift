/// An option of nbdkit as it may stand after `--`, read as nbdkit reads it, with getopt_long(3).
enum NBDKitOption {
  /// A kind of options that nbdkit is not given here, with what to use instead.
  private struct Kind {
    /// The long names, with all that nbdkit 1.32.5 has for the same.
    var names: [String]
    var letters: String
    var advice: String
  }

  private static let refused = [
    Kind(
      names: [
        "port", "ipaddr", "ip-addr", "ipv4-only", "ipv6-only", "unix", "vsock", "single", "stdin", "oldstyle",
        "old-style",
      ],
      letters: "46piUso", advice: "--socket and --port choose where to listen"),
    Kind(names: ["pidfile", "pid-file"], letters: "P", advice: "--pidfile FILE, before --, writes the process to end"),
    Kind(names: ["run"], letters: "", advice: "clients are run beside the server"),
    Kind(
      names: ["user", "group"], letters: "ug", advice: "run lacuna itself as that user, with runuser(1) for example"),
  ]

  /// The letters of options that have a value, which may stand right after the letter.
  private static let lettersWithValue = "DegipPtuU"

  /// Why an argument is not for the nbdkit that `lacuna serve` runs; nil for those that are.
  static func refusal(of argument: String) -> String? {
    guard let kind = refused.first(where: { isMeant($0, by: argument) }) else { return nil }
    return "'\(argument)' cannot be passed to nbdkit here; \(kind.advice)"
  }

  private static func isMeant(_ kind: Kind, by argument: String) -> Bool {
    // By scalars, as nbdkit sees it: a mark after a letter is the letter's value.
    let text = argument.unicodeScalars
    if text.starts(with: "--".unicodeScalars) {
      // Long options may be shortened. Where that has several meanings, nbdkit refuses it.
      let name = text.dropFirst(2).prefix { $0 != "=" }
      return !name.isEmpty && kind.names.contains { $0.unicodeScalars.starts(with: name) }
    }
    guard text.first == "-" else { return false }
    // Several letters may share a dash, up to one that has a value: -fp10809, -r4.
    for letter in text.dropFirst() {
      if kind.letters.unicodeScalars.contains(letter) { return true }
      if lettersWithValue.unicodeScalars.contains(letter) { return false }
    }
    return false
  }
}
