"""Holds a store, as a server would, and stands in for its control socket.

Usage: hold_store.py STORE [--comm NAME] [--listen silent|FILE] [--bind-as UID] [--listen-as UID] [--log FILE]

  --comm NAME       how the process is called; NAME may have escapes as in Python strings
  --listen silent   listens on STORE.sock and says nothing
  --listen FILE     answers each request but control.hello with the lines of FILE, in which ID stands for the request's
  --bind-as UID     makes the socket as this user
  --listen-as UID   listens as this user
  --log FILE        writes a line for each client

It says "ready" when all that is so, and runs until it is ended.
"""

import argparse, fcntl, json, os, signal, socket

parser = argparse.ArgumentParser()
parser.add_argument("store")
for option in ("comm", "listen", "log"):
    parser.add_argument(f"--{option}")
for option in ("bind-as", "listen-as"):
    parser.add_argument(f"--{option}", type=int)
given = parser.parse_args()

file = open(given.store, "r+b")
fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
if given.comm:
    with open("/proc/self/comm", "wb") as comm:
        comm.write(given.comm.encode().decode("unicode_escape").encode())
lines = []
if given.listen and given.listen != "silent":
    with open(given.listen) as answers:
        lines = answers.read().splitlines()
log = open(given.log, "w") if given.log else None
listener = None
if given.listen:
    listener = socket.socket(socket.AF_UNIX)
    if given.bind_as is not None:
        os.seteuid(given.bind_as)
    listener.bind(given.store + ".sock")
    os.seteuid(os.getuid())
    if given.listen_as is not None:
        os.seteuid(given.listen_as)
    listener.listen()
    os.seteuid(os.getuid())
print("ready", flush=True)
clients = []
while True:
    if listener is None:
        signal.pause()
    client, _ = listener.accept()
    clients.append(client)
    if log:
        print("client", file=log, flush=True)
    if not lines:
        continue
    try:
        requests = client.makefile("r")
        for request in requests:
            request = json.loads(request)
            number = request["id"]
            if request["method"] == "control.hello":
                answer = {"jsonrpc": "2.0", "id": number, "result": {"version": 1, "server": "none"}}
                client.sendall(json.dumps(answer).encode() + b"\n")
                continue
            client.sendall("".join(line.replace("ID", str(number)) + "\n" for line in lines).encode())
    except OSError:
        pass
