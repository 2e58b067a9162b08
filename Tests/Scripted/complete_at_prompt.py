"""Completes a command line in a real interactive shell, on a terminal of its own, and prints what stands there then.

Usage: complete_at_prompt.py bash|zsh|fish SCRIPT LINE

SCRIPT is the shell's completions of lacuna. The tab key is pressed behind LINE, until the shell has nothing more to add, and then
the line is made the argument of a command that prints it: `words` and a line for each of its words.
"""

import os, pty, re, select, signal, sys, time

# Each shell without what the user has set up, and with a prompt that can be waited for.
SHELLS = {
    "bash": (["bash", "--norc", "--noprofile", "-i"], "PS1='READY> '; bind 'set enable-bracketed-paste off'; . '{}'"),
    "zsh": (["zsh", "-f", "-i"], "PS1='READY> '; unsetopt zle_bracketed_paste; autoload -Uz compinit; compinit -D; . '{}'"),
    "fish": (["fish", "--no-config", "-i"], "function fish_prompt; echo -n 'READY> '; end; source '{}'"),
}


class Terminal:
    def __init__(self, command):
        self.process, self.file = pty.fork()
        if self.process == 0:
            os.environ.update(TERM="dumb", COLUMNS="200", LINES="50", LANG="C.UTF-8", HISTFILE="")
            os.execvp(command[0], command)
        self.shown = ""

    def read(self, seconds):
        """Reads until nothing has come for so long."""
        while select.select([self.file], [], [], seconds)[0]:
            try:
                data = os.read(self.file, 65536)
            except OSError:
                return
            self.shown += data.decode(errors="replace")
            # fish asks what terminal it has.
            if not data:
                return

    def wait_for(self, pattern, what):
        end = time.monotonic() + 30
        while not re.search(pattern, self.shown):
            if time.monotonic() > end:
                sys.exit(f"no {what} within 30 seconds: {self.shown!r}")
            self.read(0.2)

    def type(self, text):
        os.write(self.file, text.encode())


def main(shell, script, line):
    command, setup = SHELLS[shell]
    terminal = Terminal(command)
    try:
        terminal.type(setup.format(script) + "\n")
        terminal.type("echo SET'-'UP\n")
        terminal.wait_for(r"SET-UP\s+[^\n]*READY> ", "prompt")
        terminal.read(0.5)
        terminal.shown = ""
        terminal.type(line)
        terminal.read(0.5)
        for _ in range(2):
            terminal.type("\t")
            terminal.read(1.5)
        print(terminal.shown)
    finally:
        os.kill(terminal.process, signal.SIGKILL)
        os.waitpid(terminal.process, 0)


if __name__ == "__main__":
    main(*sys.argv[1:])
