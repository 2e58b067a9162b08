import CNBDKit
import Lacuna

extension nbdkit_plugin {
  /// From the command line to the end of the process: configure, open the store, tell of its volumes, close it.
  ///
  /// `load` and `unload` stay empty: `cleanup` is the last call that any state needs.
  mutating func addLifecycleCallbacks() {
    unsafe dump_plugin = {
      print("lacuna_version=\(LacunaVersion.current)")
      print("lacuna_parameters=\(Parameter.allCases.map(\.rawValue).joined(separator: ","))")
      print("lacuna_engines=\(MemoryEngine.allCases.map(\.rawValue).joined(separator: ","))")
    }

    unsafe config = { name, value in
      answer { () throws(PluginError) in
        guard let name = unsafe name, let value = unsafe value else { return }
        try unsafe Server.shared.configure(String(cString: name), to: String(cString: value))
      }
    }

    unsafe config_complete = {
      answer { () throws(PluginError) in try Server.shared.checkConfiguration() }
    }

    // Before nbdkit forks and goes into the background, so that errors reach the terminal.
    unsafe get_ready = {
      answer { () throws(PluginError) in
        Supervision.endWithSupervisor()
        try Server.shared.openStore()
      }
    }

    // Threads would not survive the fork before.
    unsafe after_fork = {
      answer { () throws(PluginError) in try Server.shared.startBackgroundWork() }
    }

    unsafe cleanup = {
      _ = answer { () throws(PluginError) in try Server.shared.close() }
      sumUpErrors()
    }
  }
}
