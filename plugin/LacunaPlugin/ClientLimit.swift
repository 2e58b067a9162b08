import CLinux
import Glibc
import Lacuna

/// How many clients are connected at once, from before their handshake until their connection has gone.
///
/// Each takes seventeen threads, three descriptors and memory. nbdkit's own filter `limit` does not count clients that never finish
/// their handshake: a few hundred of them take all descriptors, and nbdkit (1.32.5) then tries to accept the next one again and
/// again, with a line in the log each time.
enum ClientLimit {
  /// How many there are unless `clients=` says otherwise, and how many it may say.
  static let countByDefault = 100
  static let countMax = 10_000

  /// What a connection takes: its socket, and a pipe of nbdkit's.
  private static let descriptorsPerClient = 3
  /// What the store and the control socket take, with a few for clients that are being refused.
  private static let otherDescriptors = 128
  /// What many clients that come at once and are being refused may take besides. nbdkit (1.32.5) accepts them faster than it hangs up
  /// on them, and loses the descriptor of each for which it has no more for a pipe.
  private static let spareDescriptors = 16_384

  private static let places = ClientPlaces(countMax: countByDefault)

  /// Sees to it that `count` clients can be let in, before any is.
  static func prepare(for count: Int) {
    let needed = count * descriptorsPerClient + otherDescriptors
    let descriptors = raiseDescriptorLimit(to: needed + spareDescriptors)
    let possible = max((descriptors - otherDescriptors) / descriptorsPerClient, 1)
    if possible < count {
      warn(
        "\(count) clients need \(needed) descriptors, and this process may have "
          + "\(descriptors) (ulimit -Hn): no more than \(possible) clients are let in; raise the limit, or give a smaller clients="
      )
    }
    places.countMax = min(count, possible)
  }

  /// Lets in the client that this thread has begun to serve, until the thread ends.
  static func admit() throws(PluginError) {
    let thread = lacuna_gettid()
    guard places.enter(thread) else {
      throw PluginError(
        "\(places.countMax) clients are connected, and no more are let in; clients= allows for more", errno: EBUSY)
    }
    // nbdkit has no callback for the end of a connection that did not come to be opened.
    guard unsafe lacuna_atThreadExit({ _ in ClientLimit.places.leave(lacuna_gettid()) }, nil) == 0 else {
      places.leave(thread)
      throw PluginError("there is no memory for another client", errno: ENOMEM)
    }
  }

  /// Notes that the client that this thread serves has finished its handshake.
  static func noteOpened() { places.noteOpened(lacuna_gettid()) }

  /// Raises the limit of this process's descriptors to `count`, as far as that is possible.
  ///
  /// - Returns: the limit.
  private static func raiseDescriptorLimit(to count: Int) -> Int {
    var limit = rlimit()
    let resource = __rlimit_resource_t(RLIMIT_NOFILE.rawValue)
    // Safe, all three: the kernel reads or fills in a structure of this type, which outlives the call.
    guard unsafe getrlimit(resource, &limit) == 0 else { return count }
    guard limit.rlim_cur < rlim_t(count) else { return count }
    let before = limit
    limit.rlim_cur = rlim_t(count)
    limit.rlim_max = max(limit.rlim_max, limit.rlim_cur)
    if unsafe setrlimit(resource, &limit) == 0 { return count }
    // Only root may raise the hard limit.
    limit = before
    limit.rlim_cur = limit.rlim_max
    _ = unsafe setrlimit(resource, &limit)
    return Int(clamping: limit.rlim_max)
  }
}
