internal import CLinux
internal import Glibc
internal import SystemPackage

/// The connections of this process to clients that it let in, by whatever it listens on.
package enum AcceptedSockets {
  /// Reads no more from the clients that there are now: what has arrived is still read, done and answered, and an idle connection
  /// ends.
  ///
  /// - Parameter writing: whether nothing is written to them any more either, so that nobody waits for one that does not read.
  /// - Returns: how many there are.
  package static func shutDown(writing: Bool) -> Int {
    let sockets = descriptors().compactMap { number in name(of: number).map { (number, $0) } }
    let listening = Set(sockets.filter { isListening($0.0) }.map(\.1))
    var count = 0
    // One that is closed meanwhile, and whose number stands for something else, is at worst another client.
    for (number, name) in sockets where listening.contains(name) && !isListening(number) {
      if shutdown(number, Int32(writing ? SHUT_RDWR : SHUT_RD)) == 0 { count += 1 }
    }
    return count
  }

  /// Runs `body` in a thread of its own.
  package static func inThread(_ body: @escaping @Sendable () -> Void) throws(LacunaError) {
    do throws(Errno) {
      try ControlCalls.startThread(stackByteCount: ControlLimits().stackByteCount, body)
    } catch {
      throw LacunaError(.deviceFailed(errno: error.rawValue), "no thread could be made: \(error)")
    }
  }

  /// All descriptors of this process.
  private static func descriptors() -> [Int32] {
    guard let directory = unsafe opendir("/proc/self/fd") else { return [] }
    defer { unsafe closedir(directory) }
    var numbers: [Int32] = []
    // Safe: an entry is good until the next call on the same directory, and its name ends in a NUL.
    while let entry = unsafe readdir(directory) {
      let name = unsafe withUnsafeBytes(of: &entry.pointee.d_name) { bytes in
        unsafe String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
      }
      if let number = Int32(name) { numbers.append(number) }
    }
    return numbers
  }

  /// What a socket of a stream and the connections that it accepts have in common: the path that it listens on, or the port;
  /// nil for what is no such socket, and for one without a name.
  private static func name(of descriptor: Int32) -> [UInt8]? {
    var address = sockaddr_storage()
    var byteCount = socklen_t(MemoryLayout<sockaddr_storage>.size)
    // Safe: the kernel fills in a structure that any address fits in.
    let status = unsafe withUnsafeMutablePointer(to: &address) { pointer in
      unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { pointer in
        unsafe getsockname(descriptor, pointer, &byteCount)
      }
    }
    guard status == 0, option(SO_TYPE, of: descriptor) == Int32(SOCK_STREAM.rawValue) else { return nil }
    let familyByteCount = MemoryLayout<sa_family_t>.size
    // The address of an internet socket begins with its port, which its connections have; the rest may differ.
    let isInternet = [AF_INET, AF_INET6].contains(Int32(address.ss_family))
    let end = isInternet ? familyByteCount + MemoryLayout<in_port_t>.size : min(Int(byteCount), 128)
    guard end > familyByteCount else { return nil }
    return unsafe withUnsafeBytes(of: &address) { bytes in unsafe Array(bytes.prefix(end)) }
  }

  private static func isListening(_ descriptor: Int32) -> Bool { option(SO_ACCEPTCONN, of: descriptor) == 1 }

  private static func option(_ name: Int32, of descriptor: Int32) -> Int32? {
    var value: Int32 = 0
    var byteCount = socklen_t(MemoryLayout<Int32>.size)
    // Safe: the kernel fills in a number of this size, which outlives the call.
    return unsafe getsockopt(descriptor, SOL_SOCKET, name, &value, &byteCount) == 0 ? value : nil
  }
}
