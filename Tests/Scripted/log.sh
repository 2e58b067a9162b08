#!/bin/bash
# The log of `lacuna serve`: what clients make nbdkit say again and again is summed up, and all else is there.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
need log nbdkit nbdinfo python3

# shellcheck source=lib-serve.sh
. "$(dirname "$0")/lib-serve.sh"

# mistakes REQUESTS HANDSHAKES: reads behind the end, each answered, and connections that talk nonsense.
mistakes() {
  python3 - "$work/s.lacuna.nbd" "$@" <<'PYTHON'
import socket, struct, sys
path, requests, handshakes = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
def connect():
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(20)
    client.connect(path)
    client.recv(18, socket.MSG_WAITALL)
    return client
client = connect()
client.sendall(struct.pack(">I8sII", 3, b"IHAVEOPT", 1, 0))
assert len(client.recv(10, socket.MSG_WAITALL)) == 10
for number in range(requests):
    client.sendall(struct.pack(">IHHQQI", 0x25609513, 0, 0, number, 1 << 40 | number, 512))
    assert struct.unpack(">IIQ", client.recv(16, socket.MSG_WAITALL)) == (0x67446698, 22, number)
for number in range(handshakes):
    stranger = connect()
    stranger.sendall(b"GET / HTTP/1.0\r\n\r\n%d" % number)
    try:
        while stranger.recv(100):
            pass
    except ConnectionResetError:
        pass  # nbdkit had not read all of it.
    stranger.close()
# Nothing is in flight when it hangs up.
client.sendall(struct.pack(">IHHQQI", 0x25609513, 0, 2, 0, 0, 0))
assert client.recv(1) == b""
PYTHON
}

check "a store" "$program" create "$work/s.lacuna" --size 16M
start_serve
check "twenty thousand wrong requests and a thousand wrong handshakes" mistakes 20000 1000
check "a good client is served" nbdinfo --size "nbd+unix:///?socket=$work/s.lacuna.nbd"
sleep 11
check "the wrong requests are summed up meanwhile" grep -q 'out of range.*(the last of 19995 more like it in 10 s)$' "$work/log"
check_equal "lines of them" 6 "$(grep -c 'out of range' "$work/log")"
check_at_most "bytes of log" 4000 "$(stat -c %s "$work/log")"
mistakes 7 0
stop_serve "a server of clients that make mistakes"
check "the rest is summed up in the end" grep -q 'out of range.*(the last of 7 more like it in [0-9]* s)$' "$work/log"

# What was asked for is not summed up.
start_serve -- -v
check "a hundred wrong requests" mistakes 100 0
stop_serve "a server with -v"
check_equal "lines of debugging for each" 100 "$(grep -c 'debug: sending error reply' "$work/log")"
check_equal "lines of errors" 6 "$(grep -c 'error: .*out of range' "$work/log")"
