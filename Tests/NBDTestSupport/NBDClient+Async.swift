import CLibNBD
import Glibc

/// A request that was sent without waiting for its answer.
package final class NBDCommand {
  /// What was asked, for messages.
  package let name: String
  /// nil until the answer came, then the error if there was one.
  package fileprivate(set) var result: Result<Void, NBDError>?
  fileprivate let buffer: UnsafeMutableRawBufferPointer

  fileprivate init(name: String, byteCount: Int) {
    self.name = name
    buffer = .allocate(byteCount: byteCount, alignment: 1)
  }

  deinit { buffer.deallocate() }

  /// What a read brought.
  package var bytes: [UInt8] { Array(buffer) }
}

extension NBDClient {
  /// How many requests wait for their answers.
  package var commandsInFlight: Int { inFlight.count }

  package func startRead(_ byteCount: Int, at offset: UInt64) throws(NBDError) -> NBDCommand {
    let command = NBDCommand(name: "read \(byteCount) at \(offset)", byteCount: byteCount)
    _ = command.buffer.initializeMemory(as: UInt8.self, repeating: 0xd7)
    return try start(
      command, nbd_aio_pread(handle, command.buffer.baseAddress, byteCount, offset, nbd_completion_callback(), 0))
  }

  package func startWrite(
    _ bytes: [UInt8], at offset: UInt64, flags: CommandFlags = []
  ) throws(NBDError) -> NBDCommand {
    let command = NBDCommand(name: "write \(bytes.count) at \(offset)", byteCount: bytes.count)
    command.buffer.copyBytes(from: bytes)
    return try start(
      command,
      nbd_aio_pwrite(
        handle, command.buffer.baseAddress, bytes.count, offset, nbd_completion_callback(), flags.rawValue))
  }

  package func startZero(
    _ byteCount: UInt64, at offset: UInt64, flags: CommandFlags = []
  ) throws(NBDError) -> NBDCommand {
    let command = NBDCommand(name: "zero \(byteCount) at \(offset)", byteCount: 0)
    return try start(
      command, nbd_aio_zero(handle, byteCount, offset, nbd_completion_callback(), flags.rawValue))
  }

  package func startTrim(
    _ byteCount: UInt64, at offset: UInt64, flags: CommandFlags = []
  ) throws(NBDError) -> NBDCommand {
    let command = NBDCommand(name: "trim \(byteCount) at \(offset)", byteCount: 0)
    return try start(
      command, nbd_aio_trim(handle, byteCount, offset, nbd_completion_callback(), flags.rawValue))
  }

  package func startFlush() throws(NBDError) -> NBDCommand {
    try start(NBDCommand(name: "flush", byteCount: 0), nbd_aio_flush(handle, nbd_completion_callback(), 0))
  }

  /// Drives these connections together until none has a request in flight.
  ///
  /// - Throws: the first error that a request met, or ETIMEDOUT after `secondsMax`.
  package static func finish(_ clients: [NBDClient], secondsMax: Double = 60) throws(NBDError) {
    let deadline = Deadline(secondsFromNow: secondsMax)
    var failure: NBDError?
    while true {
      for client in clients {
        if let error = client.retire() { failure = failure ?? error }
      }
      let busy = clients.filter { $0.commandsInFlight > 0 }
      if busy.isEmpty { break }
      if deadline.hasPassed {
        throw NBDError(
          operation: "poll", code: ETIMEDOUT,
          message: "\(busy.map(\.commandsInFlight)) requests unanswered after \(secondsMax) s")
      }
      try poll(busy, deadline)
    }
    if let failure { throw failure }
  }

  private func start(_ command: NBDCommand, _ cookie: Int64) throws(NBDError) -> NBDCommand {
    guard cookie > 0 else { throw NBDError.last(command.name) }
    inFlight[UInt64(cookie)] = command
    return command
  }

  /// Takes the answers that have come; returns the first error among them.
  private func retire() -> NBDError? {
    var failure: NBDError?
    for (cookie, command) in inFlight {
      switch nbd_aio_command_completed(handle, cookie) {
      case 0: continue
      case 1: command.result = .success(())
      default:
        let error = NBDError.last(command.name)
        command.result = .failure(error)
        failure = failure ?? error
      }
      inFlight[cookie] = nil
    }
    return failure
  }

  /// Waits until one of the sockets is ready, and lets libnbd go on with those that are.
  private static func poll(_ clients: [NBDClient], _ deadline: Deadline) throws(NBDError) {
    var sockets = clients.map { client in
      let direction = Int32(nbd_aio_get_direction(client.handle))
      var events: Int32 = 0
      if direction & LIBNBD_AIO_DIRECTION_READ != 0 { events |= POLLIN }
      if direction & LIBNBD_AIO_DIRECTION_WRITE != 0 { events |= POLLOUT }
      return pollfd(fd: nbd_aio_get_fd(client.handle), events: Int16(events), revents: 0)
    }
    guard Glibc.poll(&sockets, nfds_t(sockets.count), min(deadline.millisecondsLeft, 1_000)) >= 0 else {
      if errno == EINTR { return }
      throw NBDError(operation: "poll", code: errno, message: "")
    }
    for (client, socket) in zip(clients, sockets) where socket.revents != 0 {
      let ready = Int32(socket.revents)
      let direction = Int32(nbd_aio_get_direction(client.handle))
      if ready & (POLLIN | POLLHUP | POLLERR) != 0 && direction & LIBNBD_AIO_DIRECTION_READ != 0 {
        // A failure here ends the connection; its requests then complete with that error.
        _ = nbd_aio_notify_read(client.handle)
      } else if ready & (POLLOUT | POLLERR) != 0 && direction & LIBNBD_AIO_DIRECTION_WRITE != 0 {
        _ = nbd_aio_notify_write(client.handle)
      }
    }
  }
}
