"""Gives volumes of a small store other names, with right checksums: names as no `create` would make them.

Usage: forge_names.py STORE [OLD NEW]...    where NEW may have escapes as in Python strings, such as \\n
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "Reader"))
from lacuna_reader import SECOND_SLOT, SUPERBLOCK_SIZE, Store, Superblock, crc32c, name_key, u64


def leaf(store, root):
    """The block of a tree that is one leaf."""
    assert root.height == 1, "only stores with a few volumes"
    return root.pointer[0], bytearray(store.metadata(root.pointer[0], root.pointer[2]))


def entries(data, size):
    count = int.from_bytes(data[6:8], "little")
    return [bytes(data[64 + size * index:64 + size * (index + 1)]) for index in range(count)]


def main(path, *words):
    names = {old: new.encode().decode("unicode_escape").encode() for old, new in zip(words[::2], words[1::2])}
    store = Store(path)
    # The newest superblock as it is on the device.
    slots = {offset: store.read(offset, SUPERBLOCK_SIZE) for offset in (0, SECOND_SLOT)}
    place = max(slots, key=lambda offset: u64(slots[offset], 64))
    superblock = bytearray(slots[place])
    keys, changed = [], []
    block, inodes = leaf(store, store.superblock.inodes)
    for index, entry in enumerate(entries(inodes, 520)):
        number, record = u64(entry, 0), bytearray(entry[8:])
        old = store.inodes[number].name
        name = names.pop(old, None)
        if name is not None:
            record[82:84] = len(name).to_bytes(2, "little")
            record[184:439] = name.ljust(255, b"\0")
            inodes[64 + 520 * index + 8:64 + 520 * (index + 1)] = record
        keys.append((name_key(old.encode() if name is None else name), number))
    assert not names, f"there is no {' '.join(names)}"
    changed.append((152, block, inodes))
    block, data = leaf(store, store.superblock.names)
    keys.sort()
    assert len({key for key, _ in keys}) == len(entries(data, 16)) == len(keys)
    for index, (key, number) in enumerate(keys):
        data[64 + 16 * index:80 + 16 * index] = key.to_bytes(8, "little") + number.to_bytes(8, "little")
    changed.append((184, block, data))
    with open(path, "r+b") as file:
        for root, block, data in changed:
            file.seek(block * store.block_size)
            file.write(data)
            superblock[root + 16:root + 20] = crc32c(bytes(data) + block.to_bytes(8, "little")).to_bytes(4, "little")
        superblock[12:16] = bytes(4)
        superblock[12:16] = crc32c(bytes(superblock)).to_bytes(4, "little")
        file.seek(place)
        file.write(superblock)
    Superblock(bytes(superblock))


if __name__ == "__main__":
    main(*sys.argv[1:])
