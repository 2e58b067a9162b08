/// Lines, for sockets on which each message is one.
extension RawConnection {
  /// Sends a text and a newline.
  package func send(line: String) throws { try send(Array(line.utf8) + [UInt8(ascii: "\n")]) }

  /// Receives a line, without its newline; nil where the server hung up before it ended.
  package func receiveLine() throws -> String? {
    var line: [UInt8] = []
    while let byte = try receive(1).first {
      if byte == UInt8(ascii: "\n") { return String(decoding: line, as: UTF8.self) }
      line.append(byte)
    }
    return nil
  }
}
