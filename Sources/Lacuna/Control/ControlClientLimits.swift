/// What a client bears from a control server: every bound has its name here. Any may lower them; a server sees to it that it can keep
/// them (``ControlLimits/aliveMilliseconds``).
package struct ControlClientLimits: Sendable {
  /// The longest time to get into the queue of a server, in milliseconds.
  package var connectingMillisecondsMax: UInt32 = 10_000
  /// The longest time for a server to take a request, in milliseconds.
  package var requestMillisecondsMax: UInt32 = 30_000
  /// The longest time that a server may say nothing while it has a call to do, in milliseconds.
  package var silenceMillisecondsMax: UInt32 = 30_000
  /// The longest time from the first byte of a message to its last, in milliseconds.
  package var messageMillisecondsMax: UInt32 = 60_000
  /// The longest message that is taken, in bytes, its newline included.
  package var messageByteCountMax = 16 << 20

  /// The limits of a client.
  package init() {}
}
