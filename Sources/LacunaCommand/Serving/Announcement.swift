/// What is said of a server once it serves.
struct Announcement {
  /// The store, or the parameters of the plugin.
  let what: String
  let address: ListenAddress
  let isInMemory: Bool
  let encryption: Encryption?

  private var uri: String { address.place(isEncrypted: encryption != nil) }

  /// One line.
  var text: String {
    "Serving \(what.visible) at \(uri)\n"
      + (isInMemory ? "The disk is in memory: it is gone when this server ends, however it ends\n" : "")
  }

  /// What to try, for somebody at a terminal.
  var hints: String {
    if let encryption { return hints(encryption) }
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

  /// What to try with TLS. The names in capitals are the reader's to know.
  private func hints(_ encryption: Encryption) -> String {
    let (what, before, behind) =
      switch encryption {
      case .certificates(_, forAnyone: false): ("a folder of a client's certificate", "", "tls-certificates=FOLDER")
      case .certificates(_, forAnyone: true): ("a folder with ca-cert.pem", "", "tls-certificates=FOLDER")
      case .keys: ("a user and a file of keys", "USER@", "tls-psk-file=FILE")
      }
    let client: String
    switch address {
    case .unixSocket(let path): client = "nbds+unix://\(before)/?socket=\(path)&\(behind)"
    case .loopback(let port): client = "nbds://\(before)127.0.0.1:\(port)/?\(behind)"
    case .passed: return ""
    }
    return """

      What to try, in another terminal, with \(what) (docs/guides/tls.md has QEMU and nbd-client):
          nbdinfo '\(client)'
          nbdcopy --progress disk.img '\(client)'

      """
  }

  /// Of a server in the background.
  ///
  /// - Parameter ending: the command that ends it.
  func facts(process: Int32, log: String, ending: String) -> String {
    var facts = FactSheet()
    facts.add("serving", what)
    facts.add("uri", uri)
    facts.add("process", "\(process)")
    facts.add("log", log)
    facts.add("to end it", ending)
    return facts.text
  }
}
