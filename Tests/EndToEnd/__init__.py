"""End-to-end tests: what users do with a served disk, on the kernel of a virtual machine and on this one.

A scenario (`scenario.py`) is a function of a `Lab`, in a module of the package `scenarios`. The lab makes stores, serves them
(`server.py`), and starts machines (`machine.py`): a guest of QEMU (`guest.py`, `guest_image.py`), or this machine
(`native.py`). On both, commands are run by a small agent (`agent.py`), and exports are attached as block devices. What a
scenario asserts, it asserts with `Lab.check` and its like; a command that fails makes it fail. Programs that run on the
machines are in `programs`, and need nothing but Python.
"""
