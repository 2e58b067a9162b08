"""Makes a tree of files, always the same for a seed, or prints a digest of one.

    tree.py make FOLDER COUNT SEED      files from empty to 1.5 MB in nested folders, with links; each is synced to disk
    tree.py digest FOLDER               of names, kinds and contents; lost+found is left out
"""

import hashlib
import os
import random
import sys


def make(top, count, seed):
    source = random.Random(seed)
    for index in range(count):
        folder = os.path.join(top, f"{index % 13}", f"{index % 101}")
        os.makedirs(folder, exist_ok=True)
        size = source.choice([0, 1, 100, 4095, 4096, 4097, 10_000, 30_000])
        if index % 40 == 0:
            size = 1_500_000
        with open(os.path.join(folder, f"file{index}"), "wb") as file:
            file.write(source.randbytes(size))
            if index % 10 == 0:
                file.flush()
                os.fsync(file.fileno())
        if index % 50 == 0:
            os.symlink(f"file{index}", os.path.join(folder, f"link{index}"))


def digest(top):
    total = hashlib.sha256()
    for folder, folders, names in os.walk(top):
        folders[:] = sorted(name for name in folders if name != "lost+found")
        for name in sorted(names):
            path = os.path.join(folder, name)
            total.update(os.path.relpath(path, top).encode() + b"\0")
            if os.path.islink(path):
                total.update(os.readlink(path).encode() + b"\0")
                continue
            with open(path, "rb") as file:
                total.update(hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()


def main():
    if sys.argv[1] == "make":
        make(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
    elif sys.argv[1] == "digest":
        print(digest(sys.argv[2]))
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main()
