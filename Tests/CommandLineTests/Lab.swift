import Glibc
import NBDTestSupport
import Testing

/// How a test's store is held while verbs ask it.
enum Way: String, CaseIterable, CustomTestStringConvertible {
  /// Nobody else has it open.
  case free
  /// A real nbdkit serves it.
  case served

  var testDescription: String { rawValue }
}

/// A store that verbs are tried on.
struct Lab {
  let directory: PrivateDirectory
  let way: Way
  /// Where clients connect while it is served.
  private(set) var socketPath: String?

  /// The store's file.
  var store: String { directory.file("s.lacuna") }

  /// Makes a store with a volume `vm1` of 64 MiB, and hands it to `body`, free or served.
  ///
  /// - Parameters:
  ///   - template: a store to copy instead.
  ///   - parameters: more parameters of the plugin.
  static func run(
    _ way: Way, copying template: String? = nil, parameters: [String] = [], _ body: (Lab) throws -> Void
  ) throws {
    try PrivateDirectory.run { directory in
      var lab = Lab(directory: directory, way: way)
      if let template {
        #expect(try FinishedCommand.run(["cp", "--sparse=always", template, lab.store]).status == .exited(0))
      } else {
        try Program.run(["create", lab.store, "--volume", "vm1", "--size", "64M"]).succeeded()
      }
      switch way {
      case .free: try body(lab)
      case .served:
        try lab.serve(parameters) { server in
          lab.socketPath = server.socketPath
          try body(lab)
        }
      }
    }
  }

  /// Serves the store while `body` runs.
  func serve(
    _ parameters: [String] = [], options: [String] = [], _ body: (NBDServer) throws -> Void
  ) throws {
    let command = NBDServerCommand(
      plugin: try Program.plugin(), parameters: ["store=\(store)"] + parameters, options: options)
    try NBDServer.run(command, body)
  }

  /// Runs a verb on the store: `arguments` are the verb, and what comes behind the store.
  func run(_ arguments: [String], launcher: [String] = []) throws -> FinishedCommand {
    try Program.run([arguments[0], store] + arguments.dropFirst(), launcher: launcher)
  }

  /// Writes to a volume, by way of a server; of its own where the store is free.
  func write(_ volume: String, _ pieces: [(offset: UInt64, count: Int, value: UInt8)]) throws {
    func write(_ socketPath: String) throws {
      let client = try NBDClient(socketPath: socketPath, exportName: volume)
      for piece in pieces {
        try client.fill(piece.offset..<piece.offset + UInt64(piece.count), with: piece.value)
      }
      try client.flush()
      try client.disconnect()
    }
    if let socketPath { try write(socketPath) } else { try serve { try write($0.socketPath) } }
  }
}
