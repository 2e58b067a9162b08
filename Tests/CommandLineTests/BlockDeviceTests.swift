import Glibc
import NBDTestSupport
import Testing

/// A block device, by losetup(8), over a file of a private directory.
struct LoopDevice {
  let directory: PrivateDirectory
  let path: String

  /// Whether this machine and this user can have one.
  static let isPossible: Bool = {
    do {
      try with(megabytes: 1) { _ in }
      return true
    } catch {
      return false
    }
  }()

  /// The file that holds what is on the device.
  var image: String { directory.file("image") }

  static func with(megabytes: Int, _ body: (LoopDevice) throws -> Void) throws {
    try PrivateDirectory.run { directory in
      let image = directory.file("image")
      try run(["truncate", "-s", "\(megabytes)M", image])
      let name = try run(["losetup", "--find", "--show", image])
      defer { _ = try? run(["losetup", "--detach", name]) }
      try body(LoopDevice(directory: directory, path: name))
    }
  }

  /// Runs a program and returns what it printed, without the end of its last line.
  @discardableResult
  static func run(_ arguments: [String], status: Int32 = 0) throws -> String {
    let finished = try FinishedCommand.run(["env", "PATH=/usr/sbin:/sbin:/usr/bin:/bin"] + arguments)
    guard finished.status == .exited(status) else {
      throw FileMissing(path: "\(arguments)", variable: "\(finished.status) \(finished.standardError)")
    }
    return finished.standardOutput.last == "\n" ? String(finished.standardOutput.dropLast()) : finished.standardOutput
  }

  /// Writes zeroes to all of it.
  func clear() throws { try Self.run(["blkdiscard", "-z", path]) }

  /// A digest of all bytes.
  func digest() throws -> String { try Self.run(["sha256sum", path]) }

  /// The bytes that it takes on the host.
  var allocated: Int {
    var status = stat()
    return stat(image, &status) == 0 ? Int(status.st_blocks) * 512 : .max
  }

  /// Writes `bytes`, which a shell's printf(1) makes, from `offset` on.
  func put(_ bytes: String, at offset: Int) throws {
    let script = "printf '\(bytes)' | dd of=\(path) bs=1 seek=\(offset) conv=notrunc status=none"
    try Self.run(["sh", "-c", script])
  }

  func lacuna(_ arguments: [String], launcher: [String] = []) throws -> FinishedCommand {
    try Program.run([arguments[0], path] + arguments.dropFirst(), launcher: launcher)
  }
}

/// Stores on block devices.
@Suite(.enabled(if: LoopDevice.isPossible, "needs losetup and the right to use it"), .serialized)
struct BlockDeviceTests {
  private static let create = ["create", "--size", "1G"]

  /// What puts something on a device, and what a refusal calls it.
  private static let contents: [(command: String, name: String)] = [
    ("mkfs.ext4 -q DEVICE", "an ext2, ext3 or ext4 file system"), ("mkfs.xfs -q DEVICE", "an XFS file system"),
    ("mkfs.btrfs -q DEVICE", "a btrfs file system"), ("mkswap -q DEVICE", "swap space"),
    ("echo 'label: gpt\n,,L' | sfdisk -q --no-reread DEVICE", "a partition table (GPT)"),
    ("echo 'label: dos\n,,L' | sfdisk -q --no-reread DEVICE", "a partition table"),
    (
      "echo secret | cryptsetup luksFormat -q --pbkdf pbkdf2 --pbkdf-force-iterations 1000 DEVICE",
      "an encrypted volume (LUKS)"
    ),
    ("printf 'LABELONE' | dd of=DEVICE bs=1 seek=512 status=none", "a physical volume of LVM"),
    ("printf '\\374N+\\251' | dd of=DEVICE bs=1 seek=4096 status=none", "a member of a RAID (md)"),
    (
      "printf '\\374N+\\251' | dd of=DEVICE bs=1 seek=$((128 * 1048576 - 65536)) status=none", "a member of a RAID (md)"
    ),
    ("printf '\\374N+\\251' | dd of=DEVICE bs=1 seek=$((128 * 1048576 - 8192)) status=none", "a member of a RAID (md)"),
    ("printf x | dd of=DEVICE bs=1 seek=8388607 status=none", "data of an unknown kind"),
    ("printf x | dd of=DEVICE bs=1 seek=$((128 * 1048576 - 1)) status=none", "data of an unknown kind"),
  ]

  @Test func `are made where nothing is, and elsewhere only with --force`() throws {
    let plugin = try Program.plugin()
    for (command, name) in Self.contents {
      // mkfs.xfs takes none below 300 MiB.
      try LoopDevice.with(megabytes: command.contains("xfs") ? 320 : 128) { device in
        try LoopDevice.run(["sh", "-c", command.replacing("DEVICE", with: device.path)])
        let before = try device.digest()
        try device.lacuna(Self.create).refused(1, naming: ["holds \(name);", "--force"], command)
        let server = try NBDServer.runToEnd(["-U", "-", plugin, device.path, "size=1G", "--run", "true"])
        #expect(server.status != .exited(0) && server.standardError.contains("holds \(name);"), "\(server)")
        // What is refused for another reason costs nothing either.
        try device.lacuna(Self.create + ["--force", "--volume", "no name"]).refused(1, naming: ["no name"])
        try device.lacuna(Self.create + ["--force", "--limit", "1G"]).refused(1, naming: ["limit"])
        try device.lacuna(Self.create + ["--force", "--journal", "1G"]).refused(
          1, naming: ["the device has ", " besides its volumes"])
        #expect(try device.digest() == before, "\(command)")
        try device.lacuna(Self.create + ["--force"]).succeeded()
        // Nobody takes it for what it was.
        try LoopDevice.run(["blkid", "--probe", device.path], status: 2)
        try device.lacuna(["check", "--data"]).succeeded()
      }
    }
  }

  @Test func `are not made twice, but with --force`() throws {
    try LoopDevice.with(megabytes: 64) { device in
      let plugin = try Program.plugin()
      let first = try NBDServer.runToEnd(
        ["-U", "-", plugin, device.path, "size=1G", "volume=a", "--run", "nbdinfo --size \"$uri\""])
      #expect(first.status == .exited(0) && first.standardOutput == "1073741824\n", "\(first)")
      let uuid = try #require(try device.lacuna(["info"]).succeeded().standardOutput.firstMatch(of: /uuid: .*/)?.output)
      try device.lacuna(Self.create).refused(1, naming: ["is there already", "--volume"])
      try device.lacuna(Self.create + ["--volume", "b"]).succeeded()
      #expect(try device.lacuna(["info"]).standardOutput.contains(uuid))
      try device.lacuna(Self.create + ["--volume", "c", "--force"]).succeeded()
      let list = try device.lacuna(["list"]).succeeded().standardOutput
      #expect(list.contains("\nc ") && !list.contains("\na ") && !list.contains("\nb "), "\(list)")
      #expect(try !device.lacuna(["info"]).standardOutput.contains(uuid))
      try device.lacuna(["set", "--limit", "1G"]).refused(1, naming: ["limit is for a store in a file"])
    }
  }

  @Test func `are not made on what is in use`() throws {
    try LoopDevice.with(megabytes: 64) { device in
      let before = try device.digest()
      // As a mount and other holders in the kernel do.
      let script =
        "import os, subprocess, sys; os.open(sys.argv[1], os.O_RDWR | os.O_EXCL); sys.exit(subprocess.call(sys.argv[2:]))"
      for options in [[], ["--force"]] {
        try device.lacuna(Self.create + options, launcher: ["python3", "-c", script, device.path])
          .refused(1, naming: ["is in use", "mounted"])
      }
      #expect(try device.digest() == before)
      try device.lacuna(["list"]).refused(1, naming: ["no Lacuna store"])
    }
    try PrivateDirectory.run { directory in
      let file = directory.file("file")
      try LoopDevice.run(["touch", file])
      try Program.run(["create", file, "--size", "1G", "--force"]).refused(1, naming: ["no block device", "--force"])
    }
  }

  @Test func `are served, grow, and give back what is free`() throws {
    try LoopDevice.with(megabytes: 96) { device in
      let name = try #require(device.path.split(separator: "/").last)
      let control = "/run/lacuna/dev/\(name).sock"
      try device.lacuna(Self.create + ["--volume", "vm1"]).succeeded()
      #expect(device.allocated < 20 << 20)
      let command = NBDServerCommand(plugin: try Program.plugin(), parameters: [device.path])
      let piece = [UInt8](repeating: 5, count: 1 << 20)
      try NBDServer.run(command) { server in
        var status = stat()
        #expect(stat(control, &status) == 0 && status.st_mode == S_IFSOCK | 0o600)
        #expect(stat("/run/lacuna/dev", &status) == 0 && status.st_mode == S_IFDIR | 0o700)
        #expect(access("\(device.path).sock", F_OK) != 0)
        let client = try NBDClient(socketPath: server.socketPath)
        for number in 0..<40 as Range<UInt64> { try client.write(piece, at: number << 20) }
        try client.flush()
        // Behind a symbolic link too.
        let link = device.directory.file("link")
        try LoopDevice.run(["ln", "-s", device.path, link])
        try Program.run(["snapshot", link, "vm1@a"]).succeeded()
        #expect(try device.lacuna(["info"]).succeeded().standardOutput.contains("served by:"))
        try server.kill()
      }
      #expect(device.allocated > 40 << 20)
      let before = try device.lacuna(["info", "--json"]).succeeded().standardOutput
      #expect(before.contains("\"size\" : 100663296"), "\(before)")
      try LoopDevice.run(["truncate", "-s", "256M", device.image])
      try LoopDevice.run(["losetup", "--set-capacity", device.path])
      try NBDServer.run(command) { server in
        let info = try device.lacuna(["info", "--json"]).succeeded().standardOutput
        #expect(info.contains("\"size\" : 268435456"), "\(info)")
        let client = try NBDClient(socketPath: server.socketPath)
        for number in 0..<180 as Range<UInt64> { try client.write(piece, at: number << 20) }
        try client.flush()
        #expect(try client.read(1 << 20, at: 179 << 20) == piece)
        #expect(throws: NBDError.self) { try client.fill(300 << 20..<332 << 20, with: 6) }
        try client.disconnect()
        try device.lacuna(["check", "--data"]).succeeded()
        try device.lacuna(["delete", "vm1", "vm1@a", "--yes", "--wait"]).succeeded()
        let isGivenBack = Deadline(secondsFromNow: 90).wait { device.allocated < 40 << 20 }
        #expect(isGivenBack, "\(device.allocated) bytes are kept")
      }
      try device.lacuna(["check", "--data"]).succeeded()
    }
  }

  @Test func `are there whole or not at all where making them is killed`() throws {
    try LoopDevice.with(megabytes: 64) { device in
      var (wholeCount, blankCount) = (0, 0)
      // How long it takes depends on the machine, and on what else that does.
      let began = ContinuousClock.now
      try device.lacuna(Self.create).succeeded()
      let whole = (ContinuousClock.now - began) / .milliseconds(1)
      for round in 0..<24 {
        try device.clear()
        let milliseconds = whole * Double(round + 1) / 18
        _ = try device.lacuna(Self.create, launcher: ["timeout", "-s", "KILL", "\(milliseconds / 1000)"])
        let list = try device.lacuna(["list"])
        if list.status == .exited(0) {
          wholeCount += 1
          #expect(list.standardOutput.contains("\ndisk "), "\(list.standardOutput)")
        } else {
          blankCount += 1
          list.refused(1, naming: ["no Lacuna store"], "after \(milliseconds) ms")
          try device.lacuna(Self.create).succeeded()
        }
        // Whoever opens it for writing makes both superblocks whole, and may say so.
        #expect(try device.lacuna(["snapshot", "disk@a"]).status == .exited(0))
        try device.lacuna(["check", "--data"]).succeeded()
      }
      print("killed while a store was made on a device: \(blankCount) blank, \(wholeCount) whole")
    }
  }

  @Test func `are whole from the mark of the newest superblock on`() throws {
    try LoopDevice.with(megabytes: 64) { device in
      try device.lacuna(Self.create).succeeded()
      let dump = try device.lacuna(["dump", "0"]).succeeded().standardOutput
      let (newest, older) = dump.contains("counts: yes") ? (0, 65536) : (65536, 0)
      let zero = "\\0\\0\\0\\0\\0\\0\\0\\0"
      // What a power cut leaves that comes before the last step of making it, and then one step earlier.
      try device.put(zero, at: older)
      let list = try device.lacuna(["list"])
      #expect(list.status == .exited(0) && list.standardOutput.contains("\ndisk "), "\(list)")
      #expect(list.standardError.contains("nothing is missing"), "\(list)")
      #expect(try device.lacuna(["snapshot", "disk@a"]).status == .exited(0))
      try device.lacuna(["check", "--data"]).succeeded()
      try device.put(zero, at: newest)
      try device.put(zero, at: older)
      try device.lacuna(["list"]).refused(1, naming: ["no Lacuna store"])
    }
  }

  @Test func `have sockets that are named for the device, in the user's own folder`() throws {
    try LoopDevice.with(megabytes: 64) { device in
      try device.lacuna(Self.create).succeeded()
      let name = try #require(device.path.split(separator: "/").last)
      let plugin = "LACUNA_PLUGIN=\(try Program.plugin())"
      let runtime = try PrivateDirectory()
      defer { runtime.remove() }
      #expect(chown(runtime.path, 1234, 1234) == 0)
      for (launcher, folder) in [
        (["env"], "/run/lacuna/dev"), (["env", "XDG_RUNTIME_DIR=/x"], "/run/lacuna/dev"),
        (["setpriv", "--reuid", "1234", "env", "-u", "XDG_RUNTIME_DIR"], "/run/lacuna/dev"),
        (["setpriv", "--reuid", "1234", "env", "XDG_RUNTIME_DIR=\(runtime.path)"], "\(runtime.path)/lacuna/dev"),
        // After su(1), another user's.
        (["setpriv", "--reuid", "1235", "env", "XDG_RUNTIME_DIR=\(runtime.path)"], "/run/lacuna/dev"),
      ] {
        let line = try device.lacuna(["serve", "--dry-run"], launcher: launcher + [plugin]).succeeded().standardOutput
        #expect(line.hasSuffix(" --unix \(folder)/\(name).nbd\n"), "\(line)")
      }
      let other = try device.lacuna(["serve", "-n", "--socket", "/x/y"], launcher: ["env", plugin]).succeeded()
      #expect(other.standardOutput.hasSuffix(" --unix /x/y\n"))
    }
  }
}
