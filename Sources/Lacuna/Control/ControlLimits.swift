/// What a control server bears from its clients: every bound has its name here.
package struct ControlLimits: Sendable {
  /// The longest request, or batch of requests, in bytes, its newline included.
  package var requestByteCountMax = 1 << 20
  /// The deepest nesting of arrays and objects in a request; a batch of calls with arrays has 4. The parser is recursive.
  package var nestingMax = 16
  /// The longest string in a request, in bytes, with its escapes: names have 255 bytes, and names of exports 4096.
  package var stringByteCountMax = 8192
  /// The most requests in a batch.
  package var batchCountMax = 100
  /// The most clients at once, each with a thread of its own. For one more, the client that has been idle for longest goes;
  /// where none is idle, the newcomer is refused.
  package var connectionCountMax = 16
  /// The longest time from the first byte of a request to its last, in milliseconds.
  package var requestMillisecondsMax: UInt32 = 10_000
  /// The longest time for a client to take an answer, in milliseconds.
  package var answerMillisecondsMax: UInt32 = 30_000
  /// The longest time between two requests of a client, in milliseconds.
  package var idleMillisecondsMax: UInt32 = 3_600_000
  /// The shortest time between two reports of progress, in milliseconds.
  package var progressMillisecondsMin: UInt32 = 200
  /// The longest time that a client hears nothing while its call is being done, in milliseconds: it is then told that the server is at
  /// it. A client may give up after several times that (``ControlClientLimits/silenceMillisecondsMax``).
  package var aliveMilliseconds: UInt32 = 5_000
  /// The stack of a client's thread, in bytes.
  package var stackByteCount = 4 << 20

  /// The limits of a server.
  package init() {}
}
