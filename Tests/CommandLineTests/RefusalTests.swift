import Checksums
import Glibc
import NBDTestSupport
import Testing

/// Every verb that asks a store, with arguments that are right for a store with a volume `vm1` and its snapshot `vm1@a`.
private let verbs: [[String]] = [
  ["info"], ["info", "vm1"], ["list"], ["map", "vm1"], ["diff", "vm1@a", "vm1"], ["stats"], ["check"], ["dump", "0"],
  ["create", "--volume", "new", "--size", "1M"], ["resize", "vm1", "+1M"], ["rename", "vm1", "new"],
  ["set", "vm1", "--read-only"], ["delete", "vm1", "--snapshots", "--yes"], ["delete", "vm1@a", "--dry-run"],
  ["snapshot", "vm1@b"], ["clone", "vm1@a", "new"], ["rollback", "vm1@a", "--yes"], ["promote", "vm1+x", "new"],
  ["trim"],
]

/// Those that change nothing.
private let readers = verbs.filter {
  ["info", "list", "map", "diff", "stats", "check", "dump"].contains($0[0]) || $0.contains("--dry-run")
}

/// Those that change something.
private let writers = verbs.filter { !readers.contains($0) }

@Suite struct `A verb that cannot do what it was asked` {
  @Test(arguments: Way.allCases)
  func `names the volume that is not there, and how to find out which are`(_ way: Way) throws {
    try Lab.run(way) { lab in
      try lab.run(["snapshot", "vm1@a"]).succeeded()
      for arguments in [
        ["info", "nothing"], ["map", "nothing"], ["diff", "nothing", "vm1"], ["diff", "vm1", "nothing"],
        ["resize", "nothing", "1G"], ["rename", "nothing", "new"], ["set", "nothing", "--read-only"],
        ["set", "nothing", "--default"], ["delete", "nothing", "--yes"], ["delete", "vm1@a", "nothing", "--yes"],
        ["delete", "nothing", "--dry-run"], ["snapshot", "nothing@a"], ["snapshot", "vm1@b", "nothing@b"],
        ["clone", "nothing", "new"], ["rollback", "vm1@nothing", "--yes"], ["rollback", "nothing@a", "--yes"],
        ["promote", "vm1+nothing", "new"], ["set", "nothing", "--quota", "1G", "--default"],
      ] {
        try lab.run(arguments).refused(1, naming: ["nothing", "lacuna list \(lab.store)"], "\(arguments)")
      }
      // All or none.
      let names = try lab.run(["list"]).standardOutput.split(separator: "\n").dropFirst().map {
        $0.prefix { $0 != " " }
      }
      #expect(names == ["vm1", "vm1@a"])
    }
  }

  @Test(arguments: Way.allCases) func `names the name that is taken`(_ way: Way) throws {
    try Lab.run(way) { lab in
      try lab.run(["create", "--volume", "vm2", "--size", "1M"]).succeeded()
      try lab.run(["snapshot", "vm1@a"]).succeeded()
      for arguments in [
        ["create", "--volume", "vm2", "--size", "1M"], ["rename", "vm1", "vm2"], ["clone", "vm1@a", "vm2"],
      ] {
        try lab.run(arguments).refused(1, naming: ["vm2", "choose another name"], "\(arguments)")
      }
      try lab.run(["snapshot", "vm1@a"]).refused(1, naming: ["vm1@a", "choose another name"])
      try lab.run(["rename", "vm1@a", "vm1@a"]).refused(1, naming: ["vm1@a"])
    }
  }

  @Test(arguments: Way.allCases) func `says what can be no name`(_ way: Way) throws {
    try Lab.run(way) { lab in
      try lab.run(["snapshot", "vm1@a"]).succeeded()
      let tooLong = String(repeating: "x", count: 256)
      for name in [
        "", "-", "-a", "--yes", "-a/b", "a//b", "/a", "a/", ".", "..", "a/../b", "a b", "a\u{1B}[31m", "größe", "a@b",
        tooLong,
      ] {
        let volume = name.hasPrefix("-") ? ["--volume=\(name)"] : ["--volume", name]
        try lab.run(["create", "--size", "1M"] + volume).refused(1, naming: [], "create \(name)")
        try lab.run(["clone", "--", "vm1@a", name]).refused(1, naming: [], "clone \(name)")
        try lab.run(["rename", "--", "vm1", name]).refused(1, naming: [], "rename \(name)")
      }
      for name in ["vm1", "vm1@", "vm1@a/b", "vm1@a..b", "vm1@.a", "vm1@a@b", "@a"] {
        try lab.run(["snapshot", name]).refused(1, naming: [], "snapshot \(name)")
      }
      try lab.run(["rollback", "vm1", "--yes"]).refused(1, naming: ["vm1"])
      try lab.run(["clone", "vm1@a", "vm1@b"]).refused(1, naming: ["vm1@b"])
    }
  }

  @Test func `says how to make the store that is not there`() throws {
    try PrivateDirectory.run { directory in
      let store = directory.file("none.lacuna")
      for verb in verbs where verb[0] != "create" {
        let finished = try Program.run([verb[0], store] + verb.dropFirst())
        finished.refused(1, naming: [store, "lacuna create"], "\(verb)")
      }
      try Program.run(["serve", store]).refused(1, naming: [store, "lacuna create"])
      try Program.run(["create", directory.file("no/such/folder"), "--size", "1M"]).refused(
        1, naming: ["no/such/folder"])
      #expect(access(store, F_OK) != 0)
    }
  }

  @Test func `leaves alone what is no store`() throws {
    try PrivateDirectory.run { directory in
      let text = directory.file("text")
      #expect(try FinishedCommand.run(["sh", "-c", "seq 100000 > \(text)"]).status == .exited(0))
      let empty = directory.file("empty")
      #expect(try FinishedCommand.run(["touch", empty]).status == .exited(0))
      let fifo = directory.file("fifo")
      #expect(mkfifo(fifo, 0o600) == 0)
      for (path, what) in [
        (text, "no Lacuna store"), (empty, "an empty file"), (directory.path, "Is a directory"),
        ("/dev/null", "neither a regular file nor a block device"), (fifo, "neither a regular file nor a block device"),
      ] {
        // Also to a creation that says nothing of a volume, or much of the store.
        let more = [["create", "--size", "1M"], ["create", "--size", "1M", "--block-size", "8K"]]
        for verb in verbs + more {
          try Program.run([verb[0], path] + verb.dropFirst()).refused(1, naming: [path, what], "\(verb)")
        }
      }
      #expect(try FinishedCommand.run(["sh", "-c", "seq 100000 | cmp - \(text)"]).status == .exited(0))
    }
  }

  @Test func `makes no file of a folder's path, and none of no path`() throws {
    try PrivateDirectory.run { directory in
      try Program.run(["create", directory.file("s"), "--size", "1M"]).succeeded()
      for path in [directory.file("x/"), directory.file("s/"), directory.file("x//")] {
        for verb in verbs + [["create", "--size", "1M"]] {
          try Program.run([verb[0], path] + verb.dropFirst()).refused(1, naming: [path, "folder"], "\(verb)")
        }
      }
      #expect(access(directory.file("x"), F_OK) != 0)
      #expect(try Program.run(["list", directory.file("s")]).succeeded().standardOutput.contains("\ndisk"))
      try Program.run(["create", "", "--size", "1M"]).refused(1, naming: ["empty"])
      try Program.run(["create", directory.file("no/x"), "--size", "1M"]).refused(
        1, naming: ["no folder \(directory.file("no"))"])
    }
  }

  @Test func `says of a store that was cut off that it cannot be opened, and sends nobody to what fails as well`()
    throws
  {
    try Lab.run(.free) { lab in
      try lab.run(["snapshot", "vm1@a"]).succeeded()
      #expect(truncate(lab.store, 10 << 20) == 0)
      for verb in verbs {
        let finished = try lab.run(verb)
        finished.refused(1, naming: [lab.store, "a copy"], "\(verb)")
        #expect(!finished.standardError.contains("lacuna check"), "\(finished.standardError)")
      }
    }
  }

  @Test func `names what a store of a newer version has, and leaves it as it is`() throws {
    try Lab.run(.free) { lab in
      try lab.run(["snapshot", "vm1@a"]).succeeded()
      try addFeature(bit: 63, to: lab.store)
      let before = try FinishedCommand.run(["sha256sum", lab.store]).standardOutput
      for verb in verbs { try lab.run(verb).refused(1, naming: [lab.store, "bit 63", "newer"], "\(verb)") }
      #expect(try FinishedCommand.run(["sha256sum", lab.store]).standardOutput == before)
    }
  }

  /// Sets a bit among the features that a program must know, in both superblocks, and makes their checksums right.
  private func addFeature(bit: Int, to path: String) throws {
    let descriptor = open(path, O_RDWR)
    defer { close(descriptor) }
    for offset in [0, 65536] as [off_t] {
      var bytes = [UInt8](repeating: 0, count: 4096)
      #expect(pread(descriptor, &bytes, bytes.count, offset) == bytes.count)
      bytes[32 + bit / 8] |= 1 << UInt8(bit % 8)
      bytes.replaceSubrange(12..<16, with: [0, 0, 0, 0])
      let sum = bytes.withUnsafeBytes { CRC32C.checksum($0) }
      for index in 0..<4 { bytes[12 + index] = UInt8(truncatingIfNeeded: sum >> UInt32(8 * index)) }
      #expect(pwrite(descriptor, bytes, bytes.count, offset) == bytes.count)
    }
  }

  @Test func `says of a store that may not be written to that it may not, and reads it`() throws {
    // Root may write to all, so it goes without that.
    let launcher = geteuid() == 0 ? ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] : []
    try Lab.run(.free) { lab in
      try lab.run(["snapshot", "vm1@a"]).succeeded()
      chmod(lab.store, 0o444)
      for verb in readers { try lab.run(verb, launcher: launcher).succeeded() }
      for verb in writers where verb[0] != "promote" {
        try lab.run(verb, launcher: launcher).refused(1, naming: [lab.store], "\(verb)")
      }
      chmod(lab.store, 0)
      for verb in verbs { try lab.run(verb, launcher: launcher).refused(1, naming: [lab.store], "\(verb)") }
    }
  }

  @Test func `says who holds a store that cannot be asked`() throws {
    try Lab.run(.free) { lab in
      try lab.serve(["control=off"]) { server in
        for verb in verbs {
          try lab.run(verb).refused(1, naming: [lab.store, "\(server.pid ?? 0) (nbdkit)", "control"], "\(verb)")
        }
      }
      try lab.serve(["control=\(lab.directory.file("elsewhere"))"]) { _ in
        try lab.run(["info"]).refused(1, naming: [lab.store, "--control", "moved while it was served"])
        try lab.run(["info", "--control", lab.directory.file("elsewhere")]).succeeded()
        try lab.run(["info", "--control", lab.directory.file("nowhere")]).refused(1, naming: ["nowhere", "--control"])
      }
    }
  }

  @Test(.enabled(if: mayMount, "no file systems can be mounted here"))
  func `says on a full disk that it is full, and harms nothing`() throws {
    try PrivateDirectory.run { directory in
      // Of a size that holds an empty store, and in which deleting still works.
      let script = """
        set -e
        mount -t tmpfs -o size=18500K lacuna-test "$1"
        cd "$1"
        "$2" create s.lacuna --volume vm1 --size 64M
        "$2" snapshot s.lacuna vm1@a
        cat /dev/zero > filler 2>/dev/null || true
        status=0
        "$2" create t.lacuna --size 64M || status=$?
        echo "status $status"
        "$2" clone s.lacuna vm1@a vm2
        "$2" delete s.lacuna vm1@a --yes --wait
        rm filler
        "$2" check s.lacuna
        "$2" list s.lacuna
        ls -A
        """
      let finished = try FinishedCommand.run(
        ["unshare", "--mount", "sh", "-c", script, "sh", directory.path, try Program.path()])
      #expect(finished.status == .exited(0), "\(finished.standardError)")
      let errors = finished.standardError.split(separator: "\n")
      #expect(
        errors.count == 1 && errors[0].hasPrefix("lacuna: ") && errors[0].contains("make room"),
        "\(finished.standardError)")
      #expect(finished.standardOutput.contains("status 1\n"), "\(finished.standardOutput)")
      #expect(finished.standardOutput.contains("Nothing is wrong"), "\(finished.standardOutput)")
      #expect(finished.standardOutput.hasSuffix("\ns.lacuna\n"), "\(finished.standardOutput)")
    }
  }

  @Test func `says on a store at its limit what would help`() throws {
    try PrivateDirectory.run { directory in
      let store = directory.file("s.lacuna")
      try Program.run(["create", store, "--size", "1G", "--reservation", "1G", "--limit", "64M"])
        .refused(1, naming: ["'disk'", "make room"])
      // The store, its volume and what that is to be are made together or not at all.
      #expect(access(store, F_OK) != 0)
      try Program.run(["create", store, "--size", "1G", "--reservation", "16M", "--limit", "64M"]).succeeded()
      try Program.run(["check", store]).succeeded()
    }
    try Lab.run(.served, parameters: ["limit=32M"]) { lab in
      for arguments in [
        ["create", "--volume", "vm2", "--size", "1G", "--reservation", "1G"], ["set", "vm1", "--reservation", "64M"],
      ] { try lab.run(arguments).refused(1, naming: ["delete what is not needed"], "\(arguments)") }
      try lab.run(["snapshot", "vm1@a"]).succeeded()
      try lab.run(["check"]).succeeded()
    }
  }

  @Test func `fails where its output cannot be written`() throws {
    try Lab.run(.free) { lab in
      for verb in ["list", "info", "check", "map"] {
        let arguments = "\(lab.store)\(verb == "map" ? " vm1" : "")"
        let finished = try FinishedCommand.run(["sh", "-c", "\(Program.path()) \(verb) \(arguments) > /dev/full"])
        finished.refused(1, naming: ["output"], verb)
      }
    }
  }
}

/// Whether file systems can be mounted, as root can.
private let mayMount: Bool = {
  let finished = try? FinishedCommand.run(["unshare", "--mount", "mount", "-t", "tmpfs", "lacuna-test", "/mnt"])
  return finished?.status == .exited(0)
}()
