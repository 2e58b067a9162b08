/// What is said of a server once it serves.
struct Announcement {
  /// The store, or the parameters of the plugin.
  let what: String
  let address: ListenAddress
  let isInMemory: Bool

  /// One line.
  var text: String {
    "Serving \(what.visible) at \(address.place)\n"
      + (isInMemory ? "The disk is in memory: it is gone when this server ends, however it ends\n" : "")
  }

  /// What to try, for somebody at a terminal.
  var hints: String {
    let uri = address.place
    let client: String
    switch address {
    case .unixSocket(let path): client = "-unix \(path.shellQuoted)"
    case .loopback(let port): client = "127.0.0.1 \(port)"
    case .passed: return ""
    }
    let drive = "file=\(uri),format=raw,if=virtio,discard=unmap" + (isInMemory ? "" : ",file.reconnect-delay=60")
    return """

      What to try, in another terminal (nbdinfo and nbdcopy are in Debian's libnbd-bin):
          nbdinfo '\(uri)'
          nbdcopy --progress disk.img '\(uri)'
          sudo modprobe nbd && sudo nbd-client \(client) /dev/nbd0
          qemu-system-x86_64 -m 1G -drive '\(drive)'

      """
  }

  /// Of a server in the background.
  ///
  /// - Parameter ending: the command that ends it.
  func facts(process: Int32, log: String, ending: String) -> String {
    var facts = FactSheet()
    facts.add("serving", what)
    facts.add("uri", address.place)
    facts.add("process", "\(process)")
    facts.add("log", log)
    facts.add("to end it", ending)
    return facts.text
  }
}
