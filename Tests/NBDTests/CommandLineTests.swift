import NBDTestSupport
import Testing

@Suite struct `The plugin on nbdkit's command line` {
  private func nbdkit(_ arguments: [String]) throws -> FinishedCommand {
    try NBDServer.runToEnd(["-U", "-"] + [try PluginUnderTest.path()] + arguments + ["--run", "true"])
  }

  @Test(
    arguments: [
      (["colour=blue", "memory=64M"], "colour"),
      (["memory=64M", "colour=blue"], "colour"),
      // What nbdkit's own parser says of a size names the part that it did not understand.
      (["memory=10X"], "X"),
      (["memory="], "size"),
      (["memory=M"], "(M)"),
      (["memory=1.5G"], ".5G"),
      (["memory=0"], "0"),
      (["memory=0G"], "0"),
      (["memory=-1"], "-1"),
      (["memory=-64M"], "-64M"),
      (["memory=8E"], "8E"),
      (["memory=9223372036854775808"], "9223372036854775808"),
      (["memory=18446744073709551615"], "18446744073709551615"),
      (["memory=18446744073709551617"], "18446744073709551617"),
      (["memory=99999999999999999999999999999999"], "99999999999999999999999999999999"),
      (["memory=16777216E"], "16777216E"),
      (["memory=64M%s%n"], "%s%n"),
      (["memory=64M", "engine=btree"], "btree"),
      (["engine=btree", "memory=64M"], "btree"),
      (["memory=64M", "engine="], "engine"),
      (["memory=64M", "engine=EXTENT "], "EXTENT"),
      (["engine=extent"], "memory"),
      ([], "memory"),
      // What belongs to a store and what belongs to memory.
      (["memory=64M", "store=/nowhere/disk"], "store"),
      (["memory=64M", "/nowhere/disk"], "store"),
      (["memory=64M", "size=64M"], "size"),
      (["memory=64M", "volume=a"], "volume"),
      (["memory=64M", "journal=1M"], "journal"),
      (["memory=64M", "create=false"], "create"),
      (["/nowhere/disk", "size=64M", "engine=extent"], "engine"),
      (["size=64M"], "store"),
      (["/nowhere/disk", "/nowhere/else", "size=64M"], "store"),
      (["/nowhere/disk", "size=64M", "size=64M"], "size"),
      (["store="], "store"),
      (["/nowhere/disk", "size=64M"], "/nowhere/disk"),
      (["/nowhere/disk"], "size="),
      (["/nowhere/disk", "size=64M", "create=false"], "/nowhere/disk"),
      (["/nowhere/disk", "size=0"], "size"),
      (["/nowhere/disk", "size=64Q"], "Q"),
      (["/nowhere/disk", "size=64M", "create=perhaps"], "perhaps"),
      (["/nowhere/disk", "size=64M", "detect-zeroes=maybe"], "maybe"),
      (["/nowhere/disk", "size=64M", "block-size=512"], "block-size"),
      (["/nowhere/disk", "size=64M", "block-size=5000"], "block-size"),
      (["/nowhere/disk", "size=64M", "block-size=128K"], "block-size"),
      (["/nowhere/disk", "size=64M", "journal=100000"], "journal"),
      (["/nowhere/disk", "size=64M", "journal=0"], "journal"),
      (["/nowhere/disk", "size=64M", "journal=2T"], "journal"),
      (["/nowhere/disk", "size=64M", "cache=0"], "cache"),
      (["/nowhere/disk", "size=64M", "limit=-1"], "-1"),
      (["/nowhere/disk", "size=64M", "checkpoint-interval=0"], "checkpoint-interval"),
      (["/nowhere/disk", "size=64M", "checkpoint-interval=-5"], "checkpoint-interval"),
      (["/nowhere/disk", "size=64M", "checkpoint-interval=soon"], "checkpoint-interval"),
      (["/nowhere/disk", "size=64M", "volume="], "volume"),
      (["/proc/self", "size=64M"], "/proc/"),
      (["/dev/null", "size=64M"], "/dev/null"),
    ] as [([String], String)])
  func `a wrong parameter ends nbdkit with one clear line`(_ parameters: [String], _ named: String) throws {
    let finished = try nbdkit(parameters)
    #expect(finished.status == .exited(1))
    let lines = finished.standardError.split(separator: "\n")
    #expect(lines.count == 1, "standard error: \(finished.standardError)")
    #expect(lines.first?.hasPrefix("nbdkit: error: ") == true, "standard error: \(finished.standardError)")
    #expect(lines.first?.contains(named) == true, "standard error: \(finished.standardError)")
  }

  @Test func `an unknown engine's message names the engines there are`() throws {
    let finished = try nbdkit(["memory=64M", "engine=btree"])
    for engine in Engine.inMemory { #expect(finished.standardError.contains(engine.rawValue)) }
  }

  @Test(arguments: Engine.inMemory)
  func `right parameters start a server, in any order`(_ engine: Engine) throws {
    for parameters in [["memory=64M", "engine=\(engine)"], ["engine=\(engine)", "memory=64M"]] {
      let finished = try nbdkit(parameters)
      #expect(finished.status == .exited(0))
      #expect(finished.standardError.isEmpty, "standard error: \(finished.standardError)")
    }
  }

  @Test func `an engine is chosen where none is named`() throws {
    let finished = try nbdkit(["memory=64M"])
    #expect(finished.status == .exited(0), "standard error: \(finished.standardError)")
  }

  @Test func `the help lists every parameter`() throws {
    let finished = try NBDServer.runToEnd([try PluginUnderTest.path(), "--help"])
    #expect(finished.status == .exited(0))
    let parameters = [
      "memory=", "engine=", "store=", "volume=", "size=", "create=", "limit=", "cache=", "block-size=", "journal=",
      "checkpoint-interval=", "detect-zeroes=",
    ]
    for parameter in parameters { #expect(finished.standardOutput.contains(parameter)) }
    for engine in Engine.inMemory { #expect(finished.standardOutput.contains(engine.rawValue)) }
  }

  @Test func `dump-plugin shows the engines, the library's version and the parallel thread model`() throws {
    let finished = try NBDServer.runToEnd([try PluginUnderTest.path(), "--dump-plugin"])
    #expect(finished.status == .exited(0))
    let lines = finished.standardOutput.split(separator: "\n").map(String.init)
    #expect(lines.contains("name=lacuna"))
    #expect(lines.contains("api_version=2"))
    #expect(lines.contains("thread_model=parallel"))
    let engines = lines.first { $0.hasPrefix("lacuna_engines=") } ?? ""
    for engine in Engine.inMemory { #expect(engines.contains(engine.rawValue), "\(lines)") }
    #expect(lines.contains { $0.hasPrefix("version=") && $0.contains(/\d+\.\d+/) }, "\(lines)")
    #expect(lines.contains { $0.hasPrefix("lacuna") && $0.contains("version=") && $0.contains(/\d+\.\d+/) }, "\(lines)")
  }

  // Not load and unload: there is nothing to do there.
  @Test func `the plugin has every callback that it needs`() throws {
    let finished = try NBDServer.runToEnd([try PluginUnderTest.path(), "--dump-plugin"])
    let lines = Set(finished.standardOutput.split(separator: "\n").map(String.init))
    let needed = [
      "config", "config_complete", "config_help", "dump_plugin", "get_ready", "after_fork", "cleanup", "list_exports",
      "default_export", "export_description", "open", "close", "get_size", "block_size", "can_write", "can_flush",
      "can_fua", "can_trim", "can_zero", "can_fast_zero", "can_extents", "can_multi_conn", "can_cache",
      "is_rotational", "pread", "pwrite", "flush", "trim", "zero", "extents", "cache",
    ]
    #expect(needed.filter { !lines.contains("has_\($0)=1") } == [])
  }
}
