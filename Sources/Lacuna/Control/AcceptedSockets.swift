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

  /// Ends the connection that a thread of this process waits for, by the system call that it is in.
  ///
  /// - Returns: whether there is one.
  package static func shutDown(awaitedBy thread: Int32) -> Bool {
    guard let file = unsafe fopen("/proc/self/task/\(thread)/syscall", "re") else { return false }
    defer { unsafe fclose(file) }
    var line = [CChar](repeating: 0, count: 256)
    // Safe: it writes no more than the array holds, with a NUL at the end.
    guard unsafe fgets(&line, Int32(line.count), file) != nil else { return false }
    // "0 0x7 ..." is the number of the call and its arguments, or "running".
    let words = line.prefix { $0 != 0 }.split(separator: CChar(UInt8(ascii: " "))).prefix(2)
      .map { String(decoding: $0.map(UInt8.init(bitPattern:)), as: UTF8.self) }
    guard words.count == 2, let call = Int(words[0]), lacuna_waitsForSocket(call) != 0,
      let descriptor = Int32(words[1].dropFirst(2), radix: 16), !isListening(descriptor)
    else { return false }
    // One that is closed meanwhile, and whose number stands for something else, is at worst another client.
    return shutdown(descriptor, Int32(SHUT_RDWR)) == 0
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
