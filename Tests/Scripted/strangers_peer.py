"""What another user does to a store that is not theirs: listens where its server would, holds its lock, connects to its server.

listen SOCKET SEEN READY    answers every line as if all were well; what comes is written to SEEN
mute SOCKET READY           lets clients in and says nothing
lock STORE SECONDS READY    holds a lock on the store for reading
connect SOCKET COUNT        connects so often and asks for what there is; prints what was answered
"""
import fcntl
import socket
import struct
import sys
import threading
import time

ANSWER = (
    b'{"jsonrpc":"2.0","id":1,"result":{"version":1,"server":"lacuna","snapshots":[],"deleted":[],"volumes":[],"pid":1}}\n'
    b'{"jsonrpc":"2.0","id":2,"result":{"version":1,"server":"lacuna","snapshots":[],"deleted":[],"volumes":[],"pid":1}}\n'
)


def ready(path):
    with open(path, "w"):
        pass


def serve(client, seen):
    while True:
        piece = client.recv(65536)
        if not piece:
            return
        with open(seen, "ab") as file:
            file.write(piece)
        client.sendall(ANSWER)


def listen(path, seen, flag):
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(16)
    ready(flag)
    while True:
        client, _ = listener.accept()
        threading.Thread(target=serve, args=(client, seen), daemon=True).start()


def mute(path, flag):
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(16)
    ready(flag)
    clients = []
    while True:
        clients.append(listener.accept())


def lock(path, seconds, flag):
    with open(path, "rb") as file:
        # An open file description lock of the whole file (fcntl_locking(2)): F_OFD_SETLK, F_RDLCK.
        fcntl.fcntl(file, 37, struct.pack("hhqqi4x", fcntl.F_RDLCK, 0, 0, 0, 0))
        ready(flag)
        time.sleep(float(seconds))


def connect(path, count):
    for _ in range(int(count)):
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(10)
        client.connect(path)
        try:
            client.sendall(b'{"jsonrpc":"2.0","id":1,"method":"store.info"}\n')
            print(client.recv(65536).decode(), end="")
        except (BrokenPipeError, ConnectionResetError):
            pass
        client.close()


globals()[sys.argv[1]](*sys.argv[2:])
