"""TLS: who has the right certificate or key gets the disk, and nobody else does."""

import socket
from pathlib import Path

from ..certificates import Authority, shared_key
from ..client import all_extents, bytes_of, connected, exercise
from ..commands import run
from ..guest import HOST as GUESTS_HOST
from ..lab import Lab
from ..machine import Disk, Machine
from ..scenario import GUEST, HOST, scenario
from ..server import Server
from .filters import MEBIBYTE, filled, stop

SIZE = 8 * MEBIBYTE


@scenario("tls-certificates", places=(HOST,))
def tls_certificates(lab: Lab) -> None:
    """libnbd's programs and QEMU with certificates; clients without, or with a stranger's, are refused."""
    authority, stranger = Authority(lab.folder / "authority"), Authority(lab.folder / "stranger")
    folder = authority.issue(lab.folder / "server", "server", "dns_name = localhost", "ip_address = 127.0.0.1")
    friend = authority.issue(lab.folder / "friend", "client")
    enemy = stranger.issue(lab.folder / "enemy", "client")
    impostor = stranger.issue(lab.folder / "impostor", "client")
    (impostor / "ca-cert.pem").write_bytes(authority.certificate.read_bytes())
    store = lab.store(size=str(SIZE))
    model = filled(lab, store, SIZE, 110)
    server = lab.server(store, "--tls", str(folder), over_tcp=True)
    server.credentials = ("", f"tls-certificates={friend}")
    qemu = ("--object", f"tls-creds-x509,id=tls,endpoint=client,dir={friend}", "--image-opts", qemu_options(server))
    use(lab, server, model, qemu)

    plain = f"nbd://127.0.0.1:{server.port}"
    handshake = "gnutls_handshake"
    refused = Refusals(lab, server)
    refused.expect("without TLS", "nbdinfo", plain, says="replied with error")
    refused.expect("QEMU without TLS", "qemu-img", "info", plain, says="TLS negotiation required")
    refused.expect("no certificate", "nbdinfo", uri(server, authority.folder), says="gnutls", logs=handshake)
    refused.expect("another's certificate", "nbdinfo", uri(server, impostor), says="gnutls", logs=handshake)
    refused.expect("no trust in the server", "nbdinfo", uri(server, enemy), says="certificate verification",
                   logs=handshake)
    refused.expect("QEMU with no trust in the server", "qemu-img", "info", "--object",
                   f"tls-creds-x509,id=tls,endpoint=client,dir={enemy}", "--image-opts", qemu_options(server),
                   says="known issuer")
    refused.expect("QEMU, and another name", "qemu-img", "info", *qemu[:3], f"{qemu[3]},tls-hostname=elsewhere",
                   says="does not match the hostname")
    garbage(lab, server)
    lab.check("the volume in the end", bytes_of(server) == model)
    stop(lab, server)
    store.lacuna("check", "--data")


@scenario("tls-keys", places=(HOST,))
def tls_keys(lab: Lab) -> None:
    """The same with pre-shared keys."""
    known = shared_key(lab.folder / "known/keys.psk", "alice")
    wrong = shared_key(lab.folder / "wrong/keys.psk", "alice")
    unknown = shared_key(lab.folder / "unknown/keys.psk", "bob")
    friend = Authority(lab.folder / "authority").issue(lab.folder / "friend", "client")
    store = lab.store(size=str(SIZE))
    model = filled(lab, store, SIZE, 120)
    server = lab.server(store, "--tls", str(known), over_tcp=True)
    server.credentials = ("alice@", f"tls-psk-file={known}")
    key = "tls-creds-psk,id=tls,endpoint=client,username=alice,dir="
    use(lab, server, model, ("--object", f"{key}{known.parent}", "--image-opts", qemu_options(server)))

    refused = Refusals(lab, server)
    with_key = f"nbds://{{}}@127.0.0.1:{server.port}/?tls-psk-file={{}}"
    handshake = "gnutls_handshake"
    refused.expect("without TLS", "nbdinfo", f"nbd://127.0.0.1:{server.port}", says="replied with error")
    refused.expect("a wrong key", "nbdinfo", with_key.format("alice", wrong), says="gnutls", logs=handshake)
    refused.expect("an unknown user", "nbdinfo", with_key.format("bob", unknown), says="gnutls", logs=handshake)
    refused.expect("a certificate", "nbdinfo", uri(server, friend), says="gnutls", logs=handshake)
    refused.expect("QEMU with a wrong key", "qemu-img", "info", "--object", f"{key}{wrong.parent}", "--image-opts",
                   qemu_options(server), says="TLS handshake failed", logs=handshake)
    garbage(lab, server)
    lab.check("the volume in the end", bytes_of(server) == model)
    stop(lab, server)
    store.lacuna("check", "--data")


@scenario("tls-fallback", places=(HOST,))
def tls_fallback(lab: Lab) -> None:
    """With nbdkit's filter, a client without TLS gets a message instead of the disk."""
    authority = Authority(lab.folder / "authority")
    folder = authority.issue(lab.folder / "server", "server", "ip_address = 127.0.0.1")
    store = lab.store(size=str(SIZE))
    model = filled(lab, store, SIZE, 130)
    server = lab.server(store, "--tls=on", f"--tls-certificates={folder}", "--filter=tls-fallback",
                        "tlsreadme=Not without TLS.\n", over_tcp=True)
    for export in ("", "disk", "nothing"):
        with connected(f"nbd://127.0.0.1:{server.port}/{export}") as handle:
            message = bytes(handle.pread(handle.get_size(), 0))
            lab.equal(f"what is there for {export!r} without TLS", b"Not without TLS.\n", message.rstrip(b"\0"))
            lab.check("it is read-only", handle.is_read_only())
            lab.equal("clients of the store", 0, store.ask("stats")["clients"])
    server.credentials = ("", f"tls-certificates={authority.folder}")
    exercise(lab, server.uri(), model, 131, 100)
    stop(lab, server)


def use(lab: Lab, server: Server, model: bytearray, qemu: tuple[str, ...]) -> None:
    """A round trip with each client. `qemu` is how QEMU's programs find the disk. Afterwards `model` has its bytes."""
    exercise(lab, server.uri(), model, 111)
    server.store.lacuna("snapshot", "disk@1")
    image = lab.folder / "image"
    run("nbdcopy", server.uri("disk@1"), str(image))
    lab.check("what nbdcopy reads of a snapshot", image.read_bytes() == model)
    model.reverse()
    image.write_bytes(model)
    run("nbdcopy", "--connections=4", str(image), server.uri())
    run("qemu-img", "convert", *qemu, "-O", "raw", str(image))
    lab.check("what nbdcopy has written and qemu-img reads", image.read_bytes() == model)
    run("/usr/bin/python3", "-m", "nbd", "-c", "h.set_uri_allow_local_file(True)",
        "-c", f"h.connect_uri({server.uri()!r})", "-c", "h.pwrite(b'nbdsh', 4096, nbd.CMD_FLAG_FUA)")
    model[4096:4101] = b"nbdsh"
    run("qemu-io", *qemu, "-c", "write -P 7 1M 2M", "-c", "discard 5M 1M", "-c", "write -z 6M 64k", "-c", "flush")
    for offset, data in ((1, b"\7" * 2 * MEBIBYTE), (5, bytes(MEBIBYTE)), (6, bytes(65536))):
        model[offset * MEBIBYTE:offset * MEBIBYTE + len(data)] = data
    with connected(server.uri()) as handle:
        holes = [(start, start + length) for start, length, flags in all_extents(handle) if flags == 3]
        lab.check("qemu-io's discard is in a hole",
                  any(start <= 5 * MEBIBYTE < 6 * MEBIBYTE <= end for start, end in holes))
    lab.check("what nbdsh and qemu-io have written", bytes_of(server) == model)


def uri(server: Server, certificates: Path) -> str:
    return f"nbds://127.0.0.1:{server.port}/?tls-certificates={certificates}"


def qemu_options(server: Server) -> str:
    return f"driver=nbd,server.type=inet,server.host=127.0.0.1,server.port={server.port},tls-creds=tls,export=disk"


class Refusals:
    """Clients that must fail, each with a reason, after which the same nbdkit serves the others."""

    def __init__(self, lab: Lab, server: Server):
        self.lab = lab
        self.server = server
        self.nbdkit = server.nbdkit

    def expect(self, what: str, *command: str, says: str, logs: str = "") -> None:
        """Runs a client, which says `says`. The server says `logs`."""
        before = len(self.server.lines)
        result = run(*command, timeout=20, check=False)
        self.lab.log.write(result.described())
        self.lab.check(f"a client is refused: {what}", not result.succeeded)
        self.lab.check(f"it says {says!r}", says in result.errors, result.errors)
        self.lab.check(f"the server says {logs!r}", self.server.wait_until(
            lambda: not logs or any(logs in line for line in self.server.lines[before:]), 10))
        self.lab.check("a good client is served", self.server.answers())
        self.lab.equal("nbdkit", self.nbdkit, self.server.nbdkit)


def garbage(lab: Lab, server: Server) -> None:
    """Clients that stop or talk nonsense in the middle of a handshake hold up nobody."""
    start_tls = b"\0\0\0\3" + b"IHAVEOPT" + b"\0\0\0\5" + b"\0\0\0\0"
    nbdkit = server.nbdkit
    with socket.create_connection(("127.0.0.1", server.port), 10) as silent:
        silent.sendall(start_tls)
        for data in (b"\26\3\1\2\0" + b"nonsense" * 100, b"GET / HTTP/1.0\r\n\r\n", b""):
            with socket.create_connection(("127.0.0.1", server.port), 10) as connection:
                connection.sendall(start_tls + data)
            lab.check("a good client is served", server.answers())
    lab.equal("nbdkit", nbdkit, server.nbdkit)


@scenario("tls-kernel", places=(GUEST,))
def tls_kernel(lab: Lab) -> None:
    """The kernel's client, for which nbd-client does the encryption: a file system, and a server that is killed."""
    authority, stranger = Authority(lab.folder / "authority"), Authority(lab.folder / "stranger")
    folder = authority.issue(lab.folder / "server", "server", "dns_name = store.example", "ip_address = 127.0.0.1")
    friend = authority.issue(lab.folder / "friend", "client")
    store = lab.store(size="1G")
    server = lab.server(store, "--tls", str(folder))
    server.credentials = ("", f"tls-certificates={friend}")
    machine = lab.guest()
    for path in (*friend.iterdir(), stranger.certificate):
        place = "/tmp/stranger.pem" if path == stranger.certificate else f"/tmp/{path.name}"
        machine.run("sh", "-c", f"cat >{place}", stdin=path.read_text(encoding="ascii"))
    nbdkit = server.nbdkit
    for what, options in {
        "no TLS": (),
        "no certificate": ("-cacertfile", "/tmp/ca-cert.pem", "-tlshostname", "store.example"),
        "no trust in the server": tls_options(authority="/tmp/stranger.pem"),
        "another name": tls_options(host="elsewhere.example"),
    }.items():
        lab.check(f"a client is refused: {what}", not attach(machine, server, *options, check=False))
    lab.equal("nbdkit", nbdkit, server.nbdkit)

    attach(machine, server, *tls_options())
    lab.file_system.format(machine, "/dev/nbd0")
    with machine.mounted("/dev/nbd0", "/tmp/mount") as mount:
        machine.run(*machine.program("tree", "make", mount, "100", "1"), timeout=120)
        machine.run("sync")
        digest = machine.run(*machine.program("tree", "digest", mount)).output
    lab.file_system.inspect(machine, "/dev/nbd0")
    machine.detach(Disk(machine, "/dev/nbd0"))
    server.kill()
    attach(machine, server, *tls_options())
    with machine.mounted("/dev/nbd0", "/tmp/mount", "ro") as mount:
        lab.equal("the files' digest", digest, machine.run(*machine.program("tree", "digest", mount)).output)
    machine.detach(Disk(machine, "/dev/nbd0"))
    server.stop()
    store.lacuna("check", "--data")


def tls_options(*, authority: str = "/tmp/ca-cert.pem", host: str = "store.example") -> tuple[str, ...]:
    return ("-cacertfile", authority, "-certfile", "/tmp/client-cert.pem", "-keyfile", "/tmp/client-key.pem",
            "-tlshostname", host)


def attach(machine: Machine, server: Server, *options: str, check: bool = True) -> bool:
    """Attaches the disk as /dev/nbd0, over two connections. Returns whether that worked."""
    result = machine.run("nbd-client", GUESTS_HOST, str(server.port), "/dev/nbd0", "-N", "disk", "-b", "4096",
                         "-C", "2", *options, check=check)
    if not result.succeeded:
        return False
    machine.shell("until [ -e /sys/block/nbd0/pid ] && [ $(cat /sys/block/nbd0/size) -gt 0 ]; do sleep 0.05; done")
    return True
