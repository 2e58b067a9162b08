"""Runs commands for a test on the machine that it is started on; a program, which needs nothing but Python.

It reads requests and writes events, each a line of JSON: on standard input and output, or on the file named by its
argument, which is a virtual machine's port to its host.

    {"id": 1, "run": ["mount", "/dev/nbd0", "/mnt"], "stdin": ""}   ->  {"id": 1, "out": "text"}, {"id": 1, "err": "text"}
    {"id": 1, "kill": 9}                                                {"id": 1, "status": 0}

A status below 0 is the signal that ended the command, as in Python's subprocess.
"""

import json
import os
import signal
import subprocess
import sys
import threading

FILE_LIMIT = 65536


class Agent:
    """Serves one connection. Threads write events, one at a time."""

    def __init__(self, requests, events):
        self.requests = requests
        self.events = events
        self.writing = threading.Lock()
        self.running = {}

    def send(self, event):
        with self.writing:
            self.events.write(json.dumps(event).encode() + b"\n")
            self.events.flush()

    def relay(self, number, stream, key):
        # One line at a time: what a program reports as done must be on its way before it does the next thing.
        for line in stream:
            self.send({"id": number, key: line.decode(errors="replace")})

    def follow(self, number, process):
        relays = [
            threading.Thread(target=self.relay, args=(number, process.stdout, "out")),
            threading.Thread(target=self.relay, args=(number, process.stderr, "err")),
        ]
        for thread in relays:
            thread.start()
        status = process.wait()
        # A daemon that the command left behind may hold its output open for ever.
        for thread in relays:
            thread.join(2)
        self.send({"id": number, "status": status})

    def start(self, number, command, stdin):
        try:
            process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)
        except OSError as error:
            self.send({"id": number, "err": f"{error}\n"})
            self.send({"id": number, "status": 127})
            return
        self.running[number] = process
        threading.Thread(target=self.follow, args=(number, process), daemon=True).start()
        try:
            process.stdin.write(stdin.encode())
            process.stdin.close()
        except BrokenPipeError:
            pass  # It ended without reading; its status tells how.

    def kill(self, number, signal_number):
        process = self.running.get(number)
        if process is None:
            return
        try:
            os.killpg(process.pid, signal_number)
        except ProcessLookupError:
            pass  # It has ended; the event that says so is on its way.

    def serve(self):
        for line in self.requests:
            request = json.loads(line)
            if "run" in request:
                self.start(request["id"], request["run"], request.get("stdin", ""))
            elif "kill" in request:
                self.kill(request["id"], request["kill"])
        for process in self.running.values():
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


def main():
    if len(sys.argv) > 1:
        descriptor = os.open(sys.argv[1], os.O_RDWR)
        requests = os.fdopen(os.dup(descriptor), "rb", buffering=FILE_LIMIT)
        events = os.fdopen(descriptor, "wb")
    else:
        requests, events = sys.stdin.buffer, sys.stdout.buffer
    agent = Agent(requests, events)
    agent.send({"ready": True})
    agent.serve()


if __name__ == "__main__":
    main()
