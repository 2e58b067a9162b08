"""The program that makes trees of files, as the scenarios use it."""

from __future__ import annotations

from .machine import Machine


def make_tree(machine: Machine, folder: str, count: int, seed: int) -> None:
    """Makes files in a folder, which is made too."""
    machine.run(*machine.program("tree", "make", folder, str(count), str(seed)), timeout=120)


def tree_digest(machine: Machine, folder: str) -> str:
    """A digest of all files in a folder."""
    return machine.run(*machine.program("tree", "digest", folder), timeout=120).output.strip()
