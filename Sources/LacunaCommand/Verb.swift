internal import ArgumentParser
internal import Lacuna

/// A verb that asks a store, or changes it.
protocol Verb: ParsableCommand {
  var target: StoreArgument { get }
  var common: CommonOptions { get }

  /// What to do next after an error of the store; nil where there is nothing to be said.
  func advice(on error: LacunaError) -> String?
}

extension Verb {
  func advice(on error: LacunaError) -> String? { error.advice(store: target.store) }

  /// Hands the store to `body`: opened by this process where it is free, else by way of its server.
  func withStore<Result>(_ purpose: StorePurpose, _ body: (StoreAccess) throws -> Result) throws -> Result {
    let access = try StoreAccess(
      target.store, for: purpose, control: common.control, progress: common.progress, logger: common.logger)
    let result: Result
    do {
      result = try body(access)
    } catch {
      try? access.close()
      throw explained(error)
    }
    do { try access.close() } catch { throw explained(error) }
    // Not beside an error, which says by itself what matters.
    for warning in access.warnings { Terminal.writeWarning(warning) }
    return result
  }

  /// Makes one call.
  func call<Method: StoreMethod>(_ method: Method, for purpose: StorePurpose) throws -> Method.Result {
    try withStore(purpose) { try $0.call(method) }
  }

  /// Prints a result: JSON where that was asked for, else what `text` makes of it.
  func show<Value: Encodable>(_ value: Value, _ text: (Value) -> String) throws {
    try Terminal.write(common.json ? JSONOutput.document(value) : text(value))
  }

  private func explained(_ error: any Error) -> any Error {
    guard let error = error as? LacunaError else { return error }
    return error.explained(advice(on: error))
  }
}
