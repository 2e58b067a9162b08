package import BlockStores
import Glibc
package import Testing

/// One promise that a protocol makes, and the test of it: a test runs all of a protocol's promises against all of its
/// stores.
package struct Promise<Kind: Sendable>: Sendable, CustomTestStringConvertible {
  private let name: String
  package let test: @Sendable (Kind) throws -> Void

  package init(_ name: String, _ test: @escaping @Sendable (Kind) throws -> Void) {
    (self.name, self.test) = (name, test)
  }

  package var testDescription: String { name }
}

/// A way to make new stores for tests, with its name.
package struct StoreKind<Store>: Sendable, CustomTestStringConvertible {
  private let name: String
  /// Makes an empty store with room for `capacity` blocks of 512 bytes. (Byte stores may have more.)
  package let make: @Sendable (_ capacity: UInt64) throws -> Store

  package init(_ name: String, _ make: @escaping @Sendable (_ capacity: UInt64) throws -> Store) {
    (self.name, self.make) = (name, make)
  }

  package var testDescription: String { name }

  package func map<Other>(_ transform: @escaping @Sendable (Store) -> Other) -> StoreKind<Other> {
    StoreKind<Other>(name) { [make] capacity in transform(try make(capacity)) }
  }
}

/// Expects `body` to throw a `StoreError` of this code.
package func expectError(
  _ code: StoreError.Code, sourceLocation: SourceLocation = #_sourceLocation, _ body: () throws -> Void
) {
  let error = #expect(throws: StoreError.self, sourceLocation: sourceLocation) { try body() }
  #expect(error?.code == code, sourceLocation: sourceLocation)
}

/// Tries again while the store is full: for tests whose readers hold blocks that will be free. Half a minute of it is a failure:
/// blocks are lost.
package func retryingWhenFull(_ body: () throws -> Void) throws {
  for _ in 0..<300_000 {
    do {
      return try body()
    } catch let error as StoreError where error.code == .outOfSpace {
      // Sleeps rather than yields, so that the readers get on even where there are few processors.
      usleep(100)
    }
  }
  throw CheckFailure("the store stays full")
}

extension Inode {
  /// A few numbers for tests.
  package static let one = Inode(rawValue: 1)
  package static let two = Inode(rawValue: 2)
  package static let three = Inode(rawValue: 3)
}

/// `count` bytes without a zero among them, different for each `seed`.
package func pattern(_ count: Int, seed: Int) -> [UInt8] {
  var generator = SeededGenerator(seed: UInt64(truncatingIfNeeded: seed))
  return generator.nonZeroBytes(count)
}
