import NBDTestSupport
import Testing

@Suite struct `Completion` {
  @Test(arguments: ["bash", "zsh", "fish"]) func `has a script for each shell`(_ shell: String) throws {
    let script = try Program.run(["--generate-completion-script", shell]).succeeded().standardOutput
    for word in ["snapshot", "rollback", "dry-run", "prometheus"] { #expect(script.contains(word), "\(word)") }
    if shell == "bash" {
      try PrivateDirectory.run { directory in
        let command = "\(try Program.path()) --generate-completion-script bash | bash -n"
        #expect(try FinishedCommand.run(["sh", "-c", command]).status == .exited(0))
      }
    }
  }

  @Test(arguments: Way.allCases) func `offers the names in the store`(_ way: Way) throws {
    try Lab.run(way) { lab in
      try lab.run(["snapshot", "vm1@monday"]).succeeded()
      // As the shell does it: a function that finds the words so far in COMP_WORDS.
      let script = """
        eval "$("$1" --generate-completion-script bash)"
        PATH=${1%/*}:$PATH
        COMP_WORDS=(lacuna info "$2" vm) COMP_CWORD=3 COMP_LINE="lacuna info $2 vm" COMP_POINT=${#COMP_LINE}
        COMP_TYPE=9
        _lacuna lacuna vm "$2"
        printf '%s\\n' "${COMPREPLY[@]}"
        """
      let finished = try FinishedCommand.run(["bash", "-c", script, "bash", try Program.path(), lab.store])
      let names = finished.standardOutput.split(separator: "\n").map { $0.filter { $0 != " " && $0 != "\\" } }
      #expect(Set(names) == ["vm1", "vm1@monday"], "\(finished)")
    }
  }
}
