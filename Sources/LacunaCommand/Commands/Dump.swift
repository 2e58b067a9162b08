internal import ArgumentParser
internal import Lacuna

struct Dump: Verb {
  static let configuration = CommandConfiguration(
    abstract: "Show one block of a store, decoded.",
    usage: "lacuna dump STORE BLOCK [options]",
    discussion: """
      docs/format.md says what the fields mean. A block's number is its offset in bytes, divided by the block size; findings
      of 'lacuna check' name blocks by it.

      Examples:
        lacuna dump s.lacuna 0
        lacuna dump s.lacuna 0x1a2b --json
      """.unwrapped)

  @OptionGroup var target: StoreArgument

  @Argument(help: "The block's number, decimal or with 0x.", transform: readNumber)
  var block: UInt64

  @OptionGroup var common: CommonOptions

  func run() throws {
    try show(call(DumpBlock(block: block), for: .inspecting)) { dump in
      // Its lines are its own: what stores hold is escaped in them.
      dump.text.hasSuffix("\n") ? dump.text : dump.text + "\n"
    }
  }
}

@Sendable private func readNumber(_ text: String) throws -> UInt64 {
  let number = text.lowercased().hasPrefix("0x") ? UInt64(text.dropFirst(2), radix: 16) : UInt64(text)
  guard let number else { throw ValidationError("'\(text)' is not the number of a block, such as 4711 or 0x1267") }
  return number
}
