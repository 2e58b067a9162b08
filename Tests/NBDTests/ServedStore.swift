import Lacuna
import LacunaTestSupport
import NBDTestSupport

/// A store in a file and the server that serves it, with the control socket.
struct ServedStore {
  let path: String
  let server: NBDServer
  let control: ControlClient

  /// Serves the store at `path` while `body` runs; makes it where `parameters` say so.
  static func run<Result>(
    _ path: String, _ parameters: [String] = [], _ body: (ServedStore) throws -> Result
  ) throws -> Result {
    try NBDServer.run(PluginUnderTest.command(store: path, parameters)) { server in
      try body(ServedStore(path: path, server: server, control: try ControlClient(path: path + ".sock")))
    }
  }

  /// A new connection to an export.
  func open(_ export: String) throws(NBDError) -> NBDClient {
    try NBDClient(socketPath: server.socketPath, exportName: export)
  }

  /// Another connection to the control socket: one is for one thread.
  func openControl() throws -> ControlClient { try ControlClient(path: path + ".sock") }

  /// All bytes of an export.
  func contents(_ export: String) throws -> [UInt8] {
    let client = try open(export)
    defer { try? client.disconnect() }
    return try client.contents()
  }

  /// Waits until what is deleted has given its space back.
  func finishDeletions() throws {
    let isDone = try Deadline(secondsFromNow: 60).wait { try control.call(GetDeletions()).volumes == 0 }
    try check(isDone, "deletions do not end")
  }

  /// Checks the store while it is served, data too.
  func checkSound() throws {
    let findings = try control.call(CheckStore(data: true)).findings
    try check(findings.isEmpty, "\(findings.prefix(5))")
  }
}

extension NBDClient {
  /// All bytes of the export.
  func contents() throws(NBDError) -> [UInt8] {
    var bytes: [UInt8] = []
    let size = try size()
    while UInt64(bytes.count) < size {
      bytes += try read(Int(min(size - UInt64(bytes.count), 1 << 20)), at: UInt64(bytes.count))
    }
    return bytes
  }
}
