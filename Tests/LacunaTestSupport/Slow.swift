import Glibc
package import Testing

extension Trait where Self == ConditionTrait {
  /// Marks what takes more than a second or two: `scripts/test --quick` leaves it out, and every other run has it.
  package static var slow: Self {
    .disabled(if: getenv("LACUNA_QUICK") != nil, "slow: scripts/test --quick leaves it out")
  }
}
