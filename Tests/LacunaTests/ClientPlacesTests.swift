import Bytes
import Glibc
import Testing

@testable import Lacuna

@Suite struct `Places for clients` {
  @Test func `are as many as there are, and free again when a client has gone`() {
    let places = ClientPlaces(countMax: 2) { _ in false }
    #expect(places.enter(1))
    #expect(places.enter(2))
    places.noteOpened(1)
    places.noteOpened(2)
    #expect(!places.enter(3))
    places.leave(1)
    #expect(places.enter(3))
    #expect(!places.enter(4))
  }

  @Test func `are taken from the client that has been in its handshake for longest`() {
    let ended = Locked<[Int32]>([])
    let places = Locked<ClientPlaces?>(nil)
    let new = ClientPlaces(countMax: 3, patienceMilliseconds: 20) { thread in
      ended.withLock { $0.append(thread) }
      places.withLock { $0 }?.leave(thread)
      return true
    }
    places.withLock { $0 = new }
    for thread: Int32 in 1...3 { #expect(new.enter(thread)) }
    // Not before its time.
    #expect(!new.enter(4))
    new.noteOpened(1)
    usleep(40_000)
    #expect(new.enter(4))
    #expect(new.enter(5))
    // 4 and 5 have just come, and 1 is no newcomer any more.
    #expect(!new.enter(6))
    #expect(ended.withLock { $0 } == [2, 3])
    places.withLock { $0 = nil }
  }

  @Test func `stay taken where the client cannot be hung up on`() {
    let places = ClientPlaces(countMax: 1, patienceMilliseconds: 0) { _ in false }
    #expect(places.enter(1))
    #expect(!places.enter(2))
    #expect(!places.enter(2))
    places.leave(1)
    #expect(places.enter(2))
  }
}
