import CLibNBD

/// A connection that is still negotiating: it can ask what there is before it takes an export.
package final class NBDNegotiation {
  private let client: NBDClient

  /// Connects and stays in option negotiation.
  package init(socketPath: String) throws(NBDError) {
    client = try NBDClient(socketPath: socketPath, exportName: "", stopsAtOptions: true)
  }

  /// All exports that the server lists.
  package func list() throws(NBDError) -> [ListedExport] {
    final class Collector { var exports: [ListedExport] = [] }
    let collector = Collector()
    let callback = nbd_list_callback(
      callback: { userData, name, description in
        guard let userData, let name, let description else { return -1 }
        let collector = Unmanaged<Collector>.fromOpaque(userData).takeUnretainedValue()
        collector.exports.append(
          ListedExport(name: String(cString: name), description: String(cString: description)))
        return 0
      }, user_data: Unmanaged.passUnretained(collector).toOpaque(), free: nil)
    let status = withExtendedLifetime(collector) { nbd_opt_list(client.handle, callback) }
    try client.check(status, "nbd_opt_list")
    return collector.exports
  }

  /// Asks about an export without taking it; the answers are then those of the returned client.
  package func info(_ exportName: String) throws(NBDError) -> NBDClient {
    try client.check(nbd_set_export_name(client.handle, exportName), "nbd_set_export_name")
    try client.check(nbd_opt_info(client.handle), "nbd_opt_info")
    return client
  }

  /// Takes an export: from here on the returned client sends requests.
  package func go(_ exportName: String) throws(NBDError) -> NBDClient {
    try client.check(nbd_set_export_name(client.handle, exportName), "nbd_set_export_name")
    try client.check(nbd_opt_go(client.handle), "nbd_opt_go")
    return client
  }

  /// Ends the negotiation without an export.
  package func abort() throws(NBDError) {
    try client.check(nbd_opt_abort(client.handle), "nbd_opt_abort")
  }
}
