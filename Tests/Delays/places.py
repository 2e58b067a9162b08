"""Where what is tested lies. Tests/Scripted/delays.sh and scripts/crash-hunt say it."""

from __future__ import annotations

import os
from pathlib import Path

from .failure import Failed


def _place(variable: str, what: str) -> Path:
    text = os.environ.get(variable)
    if not text or not Path(text).is_file():
        raise Failed(f"{variable} must name {what}")
    return Path(text).resolve()


def plugin() -> Path:
    return _place("LACUNA_PLUGIN", "the plugin's file")


def program() -> Path:
    """The program `lacuna`, which lies beside the plugin, unless LACUNA_COMMAND says otherwise."""
    if "LACUNA_COMMAND" in os.environ:
        return _place("LACUNA_COMMAND", "the program lacuna")
    beside = plugin().with_name("lacuna")
    if not beside.is_file():
        raise Failed(f"there is no program {beside}")
    return beside


def library() -> Path:
    return _place("LACUNA_DELAYS", "what was compiled of delays.c")
