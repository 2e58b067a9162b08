#!/usr/bin/env python3
"""Reads a Lacuna store, and checks it. Written from docs/format.md alone; numbers in comments are its sections.

Usage: lacuna_reader.py STORE list | check | space | limit
       lacuna_reader.py STORE cat VOLUME [FILE]
       lacuna_reader.py STORE map VOLUME

The store is opened for reading and its journal replayed in memory. The exit status is 1 where the store is damaged.
"""

import bisect, struct, sys

# --- CRC-32C (1) ---
def make_tables():
    """Table k: what two bytes contribute that have 2 k bytes behind them in a group of eight."""
    single, pairs = [], [range(65536)]
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        single.append(value)
    for _ in range(4):
        once = [value >> 8 ^ single[value & 0xFF] for value in pairs[-1]]
        pairs.append([value >> 8 ^ single[value & 0xFF] for value in once])
    return single, pairs[1:]

SINGLE, (TABLE0, TABLE1, TABLE2, TABLE3) = make_tables()

def crc32c(data):
    crc = 0xFFFFFFFF
    whole = len(data) & ~7
    for a, b, c, d in struct.iter_unpack("<4H", memoryview(data)[:whole]):
        crc = TABLE3[a ^ crc & 0xFFFF] ^ TABLE2[b ^ crc >> 16] ^ TABLE1[c] ^ TABLE0[d]
    for byte in data[whole:]:
        crc = crc >> 8 ^ SINGLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF

def u32(data, offset):
    return int.from_bytes(data[offset:offset + 4], "little")

def u64(data, offset):
    return int.from_bytes(data[offset:offset + 8], "little")

class Damaged(Exception):
    """What breaks a rule of the format."""

class Refused(Exception):
    """What is no store, or of a newer format, or not there."""

def require(condition, text):
    if not condition:
        raise Damaged(text)

# --- Superblock (3) and what pointers lead to (4) ---
SUPERBLOCK_SIZE, SECOND_SLOT, RING_START, METADATA_BLOCKS = 4096, 65536, 131072, 66
EXTENTS, INODES, NAMES, SPACE, SHARED = 1, 2, 3, 4, 5
VOLUME, SNAPSHOT, DELETED = 1, 2, 3
SNAPSHOTS_FEATURE = 1  # the known bits of the incompatible features
LIMIT_FEATURE = 1  # and of the compatible ones
VALUE_SIZES = {EXTENTS: 16, INODES: 512, NAMES: 8, SPACE: 152, SHARED: 16}
BLOCK_LIMIT = 1 << 62

class Root:
    def __init__(self, data, offset):
        self.pointer, self.height = struct.unpack_from("<QQI", data, offset), data[offset + 24]
        require(self.height <= 24 and (self.height == 0) == (self.pointer[0] == 0), "a root cannot be")

def feature_names(data, kind, bits):
    """The features of one word, by name where the table has it."""
    table = {}
    for offset in range(288, 288 + 40 * min(int.from_bytes(data[280:282], "little"), 64), 40):
        name = data[offset + 8:offset + 8 + data[offset + 2]]
        if 1 <= len(name) <= 31 and all(0x21 <= byte <= 0x7E for byte in name):
            table.setdefault((data[offset], data[offset + 1]), f"'{name.decode('ascii')}'")
    return [table.get((kind, bit), f"bit {bit}") for bit in range(64) if bits >> bit & 1]

class Superblock:
    def __init__(self, data):
        version, checksum = struct.unpack_from("<2I", data, 8)
        require(data[:8] == b"LACUNA\r\n", "no magic")
        require(crc32c(data[:12] + bytes(4) + data[16:]) == checksum, "wrong checksum")
        if version != 1:
            raise Refused(f"the store has format version {version}")
        features = u64(data, 32)
        if unknown := features & ~SNAPSHOTS_FEATURE:
            raise Refused("the store has unknown features: " + ", ".join(feature_names(data, 3, unknown)))
        self.shares = features & SNAPSHOTS_FEATURE != 0
        self.limit = u64(data, 4056) if u64(data, 16) & LIMIT_FEATURE else 0
        counts = struct.unpack_from("<3Q", data, 4032) if self.shares else (0, 0, 0)
        self.node_blocks, self.promised, self.transient = counts
        self.tag, self.uuid, self.block_size = u64(data, 40), data[40:56].hex(), u32(data, 56)
        (self.generation, self.block_count, self.ring_size, self.tail, self.tail_sequence, self.epoch, self.next_inode,
         self.default_inode, self.used_blocks, self.group_count, self.created) = struct.unpack_from("<11Q", data, 64)
        self.inodes, self.names, self.space, self.shared = (Root(data, offset) for offset in (152, 184, 216, 248))
        require(self.block_size in (1024, 2048, 4096, 8192, 16384, 32768, 65536), "impossible block size")
        require(self.ring_size % 65536 == 0 and 65536 <= self.ring_size <= 1 << 32, "impossible journal length")
        require(self.tail < self.ring_size and self.tail % 4096 == 0, "impossible journal tail")
        require(1 <= self.tail_sequence <= 1 << 62 and self.generation > 0, "impossible number")
        self.head, self.group_size = (RING_START + self.ring_size) // self.block_size, 8 * self.block_size
        require(self.head <= self.block_count and self.used_blocks <= self.block_count, "impossible block count")
        require(self.group_count <= self.groups_in(self.block_count), "impossible group count")
        require(self.node_blocks <= self.used_blocks and self.promised <= BLOCK_LIMIT, "impossible counts")
        require(self.transient <= self.next_inode, "impossible count of transient inodes")

    def groups_in(self, block_count):
        whole, rest = divmod(max(block_count - self.head, 0), self.group_size)
        return whole + (rest > METADATA_BLOCKS)

    def metadata(self, group, index):
        return self.head + group * self.group_size + index

    def place(self, block):
        """The group of a block, and its number there."""
        return divmod(block - self.head, self.group_size)

    def is_for_data(self, block, block_count):
        return self.head <= block < block_count and self.place(block)[1] >= METADATA_BLOCKS

# --- Records (5, 6, 8) ---
def extent(data, offset):
    """An extent as a run: (first, end, physical, None); physical 0 is reserved zeroes."""
    logical, physical, length, flags = struct.unpack_from("<QQII", data, offset)
    require(length > 0 and logical + length <= BLOCK_LIMIT and physical + length <= BLOCK_LIMIT, "an extent cannot be")
    require(flags == 0 and physical > 0 or flags == 1 and physical == 0, "an extent has impossible flags")
    return logical, logical + length, physical, None

class Inode:
    def __init__(self, number, data):
        self.number = number
        flags, self.kind, self.size, self.created, self.origin = struct.unpack_from("<2I3Q", data, 0)
        kinds = VOLUME, SNAPSHOT, DELETED
        require(flags <= 3 and self.kind in kinds and self.size < 1 << 63, f"inode {number} cannot be")
        self.read_only, self.throwaway, self.root = flags & 1 != 0, flags & 2 != 0, Root(data, 32)
        require(not (self.throwaway and self.kind == SNAPSHOT), f"inode {number} is a throwaway snapshot")
        self.transient = self.throwaway or self.kind == DELETED
        self.mapped, self.reserved, count, name_length = struct.unpack_from("<2Q2H", data, 64)
        require(count <= 4 and name_length <= 255, f"inode {number} has impossible counts")
        require(count == 0 or self.root.height == 0, f"inode {number} has inline extents and a tree")
        self.inline = [extent(data, 88 + 24 * index) for index in range(count)]
        require(name_length == 0 or not self.transient, f"inode {number} is gone and has a name")
        self.quota, self.reservation = u64(data, 440), u64(data, 448)
        numbers = self.mapped, self.reserved, self.quota, self.reservation
        require(all(value <= BLOCK_LIMIT for value in numbers), f"inode {number} has impossible counts")
        is_promised = self.kind == VOLUME and not self.throwaway
        self.promised = self.reserved + max(0, self.reservation - self.mapped) if is_promised else 0
        self.name_bytes = data[184:184 + name_length]
        try:
            self.name = self.name_bytes.decode("utf-8")
        except UnicodeDecodeError as error:
            raise Damaged(f"inode {number} has a name that is not UTF-8") from error

class Group:
    def __init__(self, data):
        self.free, self.bitmap_checksum, self.bitmap_slot = u32(data, 0), u32(data, 4), data[8]
        self.slots, self.present = u32(data, 12), u32(data, 16)
        self.checksums = struct.unpack_from("<32I", data, 24)
        require(self.bitmap_slot <= 1, "a group's bitmap is in an impossible slot")

def is_forged(name):
    """Whether no program that names volumes would have made a name (7)."""
    hidden = ((0, 0x1F), (0x7F, 0x9F), (0x61C, 0x61C), (0x200B, 0x200F), (0x2028, 0x202E), (0x2060, 0x206F),
              (0xFEFF, 0xFEFF), (0xE0000, 0xE007F))
    return any(first <= ord(letter) <= last for letter in name for first, last in hidden) or any(
        part in ("", ".", "..") for part in name.split("/"))

def visible(text):
    """Text from a store as a terminal may have it."""
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)

def name_key(name):
    key = 0xCBF29CE484222325
    for byte in name:
        key = (key ^ byte) * 0x100000001B3 % (1 << 64)
    return key

# --- Journal (9) ---
MAP, UNMAP, RESERVE, MARKER = 1, 2, 3, 5
LONGEST_RECORD = 80 + 4 * 4096

class Record:
    """A record with right checksum, tag and epoch."""

    def __init__(self, data):
        self.size, self.sequence, self.durable, self.kind = len(data), u64(data, 24), u64(data, 32), data[40]
        self.data = data

    def decode(self):
        what = f"journal record {self.sequence} has fields that cannot be"
        least = {MAP: 88, UNMAP: 72, RESERVE: 72, MARKER: 48}.get(self.kind, 1 << 32)
        require(self.durable < self.sequence and self.size >= least, what)
        require(self.kind == MAP or self.size == least, what)
        if self.kind == MAP:
            self.inode, self.logical, self.physical, self.count = struct.unpack_from("<4Q", self.data, 48)
            require(self.count <= 4096 and self.size == 80 + (4 * self.count + 7 & ~7), what)
            require(self.physical > 0 and self.physical + self.count < 1 << 63, what)
            self.sums = struct.unpack_from(f"<{self.count}I", self.data, 80)
        elif self.kind != MARKER:
            self.inode, self.logical, self.count = struct.unpack_from("<3Q", self.data, 48)
        require(self.kind == MARKER or self.count > 0 and self.logical + self.count < 1 << 63, what)
        return self

class Journal:
    def __init__(self, ring, superblock):
        self.ring, self.tag, self.epoch = ring, superblock.tag, superblock.epoch
        self.tail, self.first = superblock.tail, superblock.tail_sequence
        self.last, self.end = self.first - 1, 0  # the last number found; how far behind the tail the records end
        self.durable, self.records = self.last, []
        while (found := self.next_record()) is not None:
            self.end, record = found
            self.records.append(record.decode())
            self.last, self.durable = record.sequence, max(self.durable, record.durable)
        self.check_lost()

    def at(self, distance):
        """The record at a distance from the tail; None where there is none of this store and epoch."""
        offset = (self.tail + distance) % len(self.ring)
        size = u32(self.ring, offset + 4)
        data = self.ring[offset:offset + size]
        if not 48 <= size <= LONGEST_RECORD or size % 8 or len(data) < size:
            return None
        if (u64(data, 8), u64(data, 16)) != (self.tag, self.epoch):
            return None
        return Record(data) if crc32c(data[4:]) == u32(data, 0) else None

    def next_record(self):
        fresh, start, limit = (self.end + 4095) // 4096 * 4096, len(self.ring) - self.tail, len(self.ring) - 4096
        goes_round = self.end < start and start - fresh < LONGEST_RECORD
        for place in (self.end, fresh, start) if goes_round else (self.end, fresh):
            record = self.at(place) if place < limit else None
            if record and record.sequence == self.last + 1 and place + record.size <= limit:
                return place + record.size, record
        return None

    def check_lost(self):
        for distance in range((self.end + 4095) // 4096 * 4096, len(self.ring), 4096):
            record = self.at(distance)
            if record and record.sequence > self.last:
                require(record.durable <= self.last, f"the device lost records {self.last + 1} to {record.durable}")

# --- The store ---
class Store:
    def __init__(self, path):
        self.file = open(path, "rb")
        self.size = self.file.seek(0, 2)
        self.superblock = self.newest_superblock()
        self.block_size, self.block_count = self.superblock.block_size, self.size // self.superblock.block_size
        require(self.superblock.block_count <= self.block_count, "the device is shorter than the store")
        self.pages, self.warnings = {}, []
        self.groups = {key: Group(value) for key, value in self.entries(self.superblock.space, SPACE)}
        self.inodes = {key: Inode(key, value) for key, value in self.entries(self.superblock.inodes, INODES)}
        self.journal = Journal(self.read(RING_START, self.superblock.ring_size), self.superblock)
        self.replay()

    def read(self, offset, size):
        self.file.seek(offset)
        data = self.file.read(size)
        require(len(data) == size, f"the device ends in what should be there, behind byte {offset}")
        return data

    def newest_superblock(self):
        """The superblock that counts. What is wrong with the other slot is a finding, unless it was torn (3)."""
        valid, broken, self.slot_findings = [], [], []
        for offset in (0, SECOND_SLOT):
            data = self.read(offset, SUPERBLOCK_SIZE)
            try:
                valid.append((Superblock(data), data))
            except Damaged as error:
                broken.append((offset, data, error))
        if not valid:
            raise Refused(f"no valid superblock: {broken[-1][2]}")
        newest, sound = max(valid, key=lambda pair: pair[0].generation)
        for offset, data, error in broken:
            near, ends = {newest.generation + step for step in (-1, 0, 1)}, {u64(data, 64), u64(data, 4088)}
            if newest.generation == 1 and not any(data) or len(ends) == 2 and ends <= near:
                continue
            mended = self.mended(data, sound)
            if mended is not None and mended.generation == newest.generation + 1:
                newest = mended
            older = u64(data, 64) in (newest.generation - 1, newest.generation)
            self.slot_findings.append(f"the superblock at {offset}: {error}; " + (
                "it was mended" if mended else "it was the older one" if older else "it may have been the newest"))
        return newest

    @staticmethod
    def mended(data, sound):
        """What was in a slot, where only bytes that never differ have changed. (A single other byte is not looked for here.)"""
        constant = [(0, 12), (40, 64), (80, 88), (144, 152), (4064, 4088)]
        for ranges in (constant + [(16, 40), (280, 4032)], constant + [(512, 4032)]):
            candidate = bytearray(data)
            for start, end in ranges:
                candidate[start:end] = sound[start:end]
            try:
                return Superblock(bytes(candidate))
            except Damaged:
                pass
        return None

    def metadata(self, block, checksum):
        require(block < self.block_count, f"block {block} is behind the device's end")
        data = self.read(block * self.block_size, self.block_size)
        require(crc32c(data + block.to_bytes(8, "little")) == checksum, f"block {block} has a wrong checksum")
        return data

    def entries(self, root, kind, reach=lambda block: None):
        """All (key, value) of a tree, in order. `reach` is called with each node's block."""
        if root.height:
            yield from self.node_entries(root.pointer, kind, root.height - 1, None, None, reach)

    def node_entries(self, pointer, kind, level, first, limit, reach):
        reach(pointer[0])
        for key, value, upper in self.node(pointer, kind, level, first, limit):
            if level == 0:
                yield key, value
            else:
                yield from self.node_entries(struct.unpack("<QQI4x", value), kind, level - 1, key, upper, reach)

    def node(self, pointer, kind, level, first, limit):
        """The entries of a node as (key, value, upper bound of the keys below it)."""
        block, generation, checksum = pointer
        data = self.metadata(block, checksum)
        header = struct.unpack_from("<IBBHQQQ", data, 0)
        size, count, where = 8 + (VALUE_SIZES[kind] if level == 0 else 24), header[3], f"node {block}"
        owner = header[6] if kind == EXTENTS else 0
        require(header == (0x4E4C4143, kind, level, count, block, generation, owner), f"{where} is another")
        require(1 <= count <= (self.block_size - 64) // size, f"{where} has {count} entries")
        keys = [u64(data, 64 + size * index) for index in range(count)]
        require(all(a < b for a, b in zip(keys, keys[1:])), f"{where}: keys do not rise")
        require(first is None or keys[0] == first, f"{where}: its first key is not its parent's")
        require(limit is None or keys[-1] < limit, f"{where}: its last key is not below the next one")
        values = (data[72 + size * index:64 + size * (index + 1)] for index in range(count))
        return list(zip(keys, values, keys[1:] + [limit]))

    def data_checksum(self, block):
        number, position = self.superblock.place(block)
        index, entry = divmod(position, self.block_size // 4)
        group = self.groups.get(number)
        require(group is not None, f"block {block} is in a group that was never used")
        if not group.present >> index & 1:
            return 0
        if (number, index) not in self.pages:
            page = self.superblock.metadata(number, 2 + 2 * index + (group.slots >> index & 1))
            self.pages[number, index] = self.metadata(page, group.checksums[index])
        return u32(self.pages[number, index], 4 * entry)

    def blocks_of(self, inode):
        return -(-inode.size // self.block_size)

    def base(self, inode, reach=lambda block: None):
        """The extents of an inode as runs: what the trees say."""
        runs = list(inode.inline)
        for key, value in self.entries(inode.root, EXTENTS, reach):
            runs.append(extent(key.to_bytes(8, "little") + value, 0))
        return self.placed(inode, runs)

    def placed(self, inode, runs):
        end = 0
        for first, last, _, _ in runs:
            require(first >= end and last <= self.blocks_of(inode), f"an extent of '{inode.name}' is in a wrong place")
            end = last
        return runs

    # Replay (9): what the journal changed, by inode, in runs as those of `base`, but with checksums; -1 is a hole.

    def replay(self):
        self.changes = {}
        for record in self.journal.records:
            if record.kind == MARKER:
                continue
            inode, end = self.inodes.get(record.inode), record.logical + record.count
            if record.kind == MAP and record.sequence > self.journal.durable and not self.holds(record):
                self.warnings.append(f"record {record.sequence} is left out: its data did not reach the device")
                continue
            require(inode is not None, f"record {record.sequence} names inode {record.inode}, which is not there")
            require(end <= self.blocks_of(inode), f"record {record.sequence} passes the end of '{inode.name}'")
            run = (record.logical, end, -1 if record.kind == UNMAP else 0, None)
            if record.kind == MAP:
                for block in (record.physical, record.physical + record.count - 1):
                    require(self.superblock.is_for_data(block, self.block_count), f"the journal names block {block}")
                run = (record.logical, end, record.physical, record.sums)
            replace(self.changes.setdefault(record.inode, []), run)

    def holds(self, record):
        if record.physical + record.count > self.block_count:
            return False
        data = self.read(record.physical * self.block_size, record.count * self.block_size)
        return tuple(self.checksums(data)) == record.sums

    def checksums(self, data):
        return (crc32c(data[offset:offset + self.block_size]) for offset in range(0, len(data), self.block_size))

    def runs(self, inode):
        """All of a volume as (first, end, physical, checksums): 0 is reserved zeroes, -1 a hole (10)."""
        runs = self.base(inode)
        for change in self.changes.get(inode.number, []):
            replace(runs, change)
        end = 0
        for run in runs + [(self.blocks_of(inode),) * 2 + (-1, None)]:
            if run[0] > end:
                yield end, run[0], -1, None
            if run[1] > run[0]:
                yield run
            end = run[1]

    def data(self, run):
        """The bytes of a run with physical blocks, verified, in pieces."""
        first, end, physical, sums = run
        for start in range(0, end - first, 256):
            count = min(256, end - first - start)
            data = self.read((physical + start) * self.block_size, count * self.block_size)
            for index, found in enumerate(self.checksums(data), start):
                expected = self.data_checksum(physical + index) if sums is None else sums[index]
                require(found == expected, f"block {physical + index} has a wrong data checksum")
            yield data

    def find(self, name):
        names = dict(self.entries(self.superblock.names, NAMES))
        key = name_key(name.encode())
        while key in names:
            inode = self.inodes.get(u64(names[key], 0))
            require(inode is not None, f"the name {key:#x} leads to no inode")
            if inode.name == name and not inode.transient:
                return inode
            key = (key + 1) % (1 << 64)
        raise Refused(f"there is no volume '{name}'")

def replace(runs, new):
    """Puts a run into a sorted list of runs, over what is there."""
    first, end = new[0], new[1]
    low = bisect.bisect_right(runs, first, key=lambda run: run[1])
    high = bisect.bisect_left(runs, end, key=lambda run: run[0])
    before, after = (cut(runs[low], 0, first), cut(runs[high - 1], end, 1 << 64)) if low < high else ([], [])
    runs[low:high] = before + [new] + after

def cut(run, first, end):
    """The part of a run from `first` to `end`, in a list; empty where there is none."""
    start, first, end = run[0], max(first, run[0]), min(end, run[1])
    physical = run[2] + first - start if run[2] > 0 else run[2]
    return [(first, end, physical, run[3] and run[3][first - start:end - start])] if first < end else []

# --- Checking ---
class Check:
    def __init__(self, store):
        self.store, self.superblock, self.findings = store, store.superblock, list(store.slot_findings)
        self.reached = {}  # what leads to a block first, by the block
        self.references = {}  # how many places lead to a block (8)
        self.node_blocks, self.shared_nodes = set(), {}

    def note(self, condition, text):
        if not condition:
            self.findings.append(text)

    def reach(self, block, what, count=1, is_node=False, may_share=False):
        """Counts one more place that leads to blocks; gives those that nothing had led to, or None where they cannot be."""
        new = []
        for number in range(block, block + count):
            if not self.superblock.is_for_data(number, self.superblock.block_count):
                self.findings.append(f"{what} leads to block {number}, which is none for data or nodes")
                return None
            if number in self.reached:
                other = f"{what} and {self.reached[number]} lead to block {number}"
                self.note(may_share and self.superblock.shares, other)
                self.note(is_node == (number in self.node_blocks), f"{other}: it is a node and data")
            else:
                new.append(number)
                self.reached[number] = what
            if is_node:
                self.node_blocks.add(number)
            self.references[number] = self.references.get(number, 0) + 1
        return new

    def attempt(self, what, body):
        try:
            return body()
        except Damaged as error:
            return self.findings.append(f"{what}: {error}")

    def tree(self, root, kind, what):
        reach = lambda block: self.reach(block, what, is_node=True)
        return self.attempt(what, lambda: list(self.store.entries(root, kind, reach=reach))) or []

    def run(self):
        superblock, store = self.superblock, self.store
        self.tree(superblock.space, SPACE, "space tree")
        self.tree(superblock.inodes, INODES, "tree of inodes")
        shared = self.tree(superblock.shared, SHARED, "tree of shared runs")
        for inode in store.inodes.values():
            self.attempt(f"inode {inode.number} '{inode.name}'", lambda: self.volume(inode))
            self.kind(inode)
        self.attempt("tree of shared runs", lambda: self.shared_runs(shared))
        self.names({key: u64(value, 0) for key, value in self.tree(superblock.names, NAMES, "tree of names")})
        self.bitmaps()
        self.journal()
        self.note(superblock.used_blocks == len(self.reached),
                  f"the superblock counts {superblock.used_blocks} used blocks, the trees reach {len(self.reached)}")
        self.note(superblock.group_count == superblock.groups_in(superblock.block_count),
                  f"the superblock counts {superblock.group_count} groups")
        default = store.inodes.get(superblock.default_inode)
        self.note(superblock.default_inode == 0 or default and not default.transient, "no default volume")
        if superblock.shares:
            inodes = store.inodes.values()
            counts = len(self.node_blocks), sum(inode.promised for inode in inodes), sum(inode.transient for inode in inodes)
            said = (superblock.node_blocks, superblock.promised, superblock.transient)
            self.note(counts == said, f"the superblock counts {said} nodes, promises and transient inodes, not {counts}")
        self.note(max(store.inodes, default=0) < superblock.next_inode, "the next inode is in use")
        return self.findings

    def volume(self, inode):
        what, counts = f"inode {inode.number} '{inode.name}'", [0, 0]
        runs = list(inode.inline)
        for run in runs:
            self.data(run, what)
        if inode.root.height:
            runs += self.subtree(inode.root.pointer, inode.root.height - 1, None, None, what)
        for run in self.store.placed(inode, runs):
            counts[run[2] == 0] += run[1] - run[0]
        if inode.kind == DELETED:
            is_right = counts[0] <= inode.mapped and counts[1] <= inode.reserved
        else:
            is_right = counts == [inode.mapped, inode.reserved]
        self.note(is_right, f"{what} has {counts} mapped and reserved blocks")

    def subtree(self, pointer, level, first, limit, what):
        """The runs below a node of extents, each node looked at the first time that something leads to it."""
        new = self.reach(pointer[0], what, is_node=True, may_share=True)
        require(new is not None, f"{what} leads to no node")
        if not new:
            known, height, key, runs = self.shared_nodes.get(pointer[0], (None, None, None, []))
            require((known, height) == (pointer, level), f"block {pointer[0]} is shared as different nodes")
            require(first in (None, key) and (limit is None or runs[-1][1] <= limit), f"node {pointer[0]} does not fit")
            return runs
        runs, key = [], None
        for key, value, upper in self.store.node(pointer, EXTENTS, level, first, limit):
            if level:
                runs += self.subtree(struct.unpack("<QQI4x", value), level - 1, key, upper, what)
            else:
                runs.append(extent(key.to_bytes(8, "little") + value, 0))
                self.data(runs[-1], what)
        require(limit is None or runs[-1][1] <= limit, f"node {pointer[0]} does not fit")
        self.shared_nodes[pointer[0]] = pointer, level, runs[0][0], runs
        return runs

    def data(self, run, what):
        if run[2]:
            for block in self.reach(run[2], what, run[1] - run[0], may_share=True) or []:
                self.attempt(what, lambda: list(self.store.data((0, 1, block, None))))

    def shared_runs(self, entries):
        self.note(self.superblock.shares or not entries, "there are shared runs without the feature for them")
        said, end = {}, 0
        for first, value in entries:
            length, count = struct.unpack("<2Q", value)
            require(first >= end and length >= 1 and count >= 2, f"the shared run at block {first} cannot be")
            end = first + length
            require(end <= self.superblock.block_count, f"the shared run at block {first} passes the device's end")
            said.update((block, count) for block in range(first, end))
        found = {block: count for block, count in self.references.items() if count > 1}
        wrong = sorted(block for block in said.keys() | found.keys() if said.get(block) != found.get(block))
        for block in wrong[:10]:
            count = self.references.get(block, 0)
            self.findings.append(f"block {block} has {count} references, and {said.get(block, 1)} by the shared runs")

    def kind(self, inode):
        what, name = f"inode {inode.number} '{inode.name}'", inode.name.split("@")
        self.note(inode.transient or not inode.name or not is_forged(inode.name), f"{what} has a name that nobody gives")
        if not self.superblock.shares:
            plain = inode.kind == VOLUME and not inode.transient and inode.quota == inode.reservation == 0
            self.note(plain, f"{what} is what there is no feature for")
            return
        self.note(inode.kind != VOLUME or not inode.quota or inode.mapped <= inode.quota, f"{what} is above its quota")
        if not inode.transient:
            self.note(all(name), f"{what} has an empty name, or part of one")
            self.note(len(name) == (2 if inode.kind == SNAPSHOT else 1), f"{what} has a name of another kind")

    def names(self, names):
        named = sorted(inode.number for inode in self.store.inodes.values() if not inode.transient)
        self.note(sorted(names.values()) == named, "names and inodes do not match")
        for key, number in names.items():
            inode = self.store.inodes.get(number)
            step = name_key(inode.name_bytes) if inode else key
            while step != key and step in names:
                step = (step + 1) % (1 << 64)
            self.note(step == key, f"the name of inode {number} is at a key where it is not found")

    def bitmaps(self):
        size = self.superblock.group_size
        expected = {}
        for number, position in map(self.superblock.place, self.reached):
            expected.setdefault(number, set()).add(position)
        self.note(expected.keys() <= self.store.groups.keys(), "blocks are reached in groups without a record")
        for number, group in self.store.groups.items():
            block = self.superblock.metadata(number, group.bitmap_slot)
            bitmap = self.attempt(f"group {number}", lambda: self.store.metadata(block, group.bitmap_checksum))
            if bitmap is None:
                continue
            found = {position for position in range(size) if bitmap[position >> 3] >> position % 8 & 1}
            wrong = found ^ (expected.get(number, set()) | set(range(METADATA_BLOCKS)))
            self.note(not wrong, f"group {number}: {len(wrong)} wrong bits, the first is {min(wrong, default=0)}")
            self.note(group.free == size - len(found), f"group {number} counts {group.free} free blocks")
            for index in range(32):
                first = self.superblock.metadata(number, index * self.store.block_size // 4)
                self.attempt(f"group {number}", lambda: self.store.data_checksum(first))

    def journal(self):
        for number, runs in self.store.changes.items():
            is_volume = self.store.inodes[number].kind == VOLUME
            self.note(is_volume, f"the journal changes inode {number}, which is no volume")
            for run in (run for run in runs if run[2] > 0):
                for block in range(run[2], run[2] + run[1] - run[0]):
                    self.note(block not in self.reached, f"the journal maps block {block}, and the trees reach it")
                self.attempt(f"the journal, inode {number}", lambda: list(self.store.data(run)))

# --- Commands ---
def cat(store, name, path=None):
    inode = store.find(name)
    with open(path, "wb") if path else sys.stdout.buffer as output:
        left = inode.size
        for run in store.runs(inode):
            pieces = store.data(run) if run[2] > 0 else (
                bytes(store.block_size * min(256, run[1] - start)) for start in range(run[0], run[1], 256))
            for piece in pieces:
                output.write(piece[:left])
                left -= min(left, len(piece))

def show_map(store, name):
    inode = store.find(name)
    for first, end, physical, _ in store.runs(inode):
        kind = {0: "zero", -1: "hole"}.get(physical, "data")
        last = min(end * store.block_size, inode.size)
        print(first * store.block_size, last - first * store.block_size, kind, *([physical] if physical > 0 else []))

def show_list(store):
    for inode in store.inodes.values():
        mark = " default" if inode.number == store.superblock.default_inode else ""
        kind = {VOLUME: "volume", SNAPSHOT: "snapshot", DELETED: "deleted"}[inode.kind]
        print(inode.number, "throwaway" if inode.throwaway else kind, inode.size, visible(inode.name) + mark)

def show_space(store):
    """Of each inode: mapped and reserved blocks, and the data and nodes that nothing else leads to."""
    blocks, leading = {}, {}
    for number, inode in store.inodes.items():
        nodes, data = set(), set()
        for first, end, physical, _ in store.base(inode, nodes.add):
            data.update(range(physical, physical + end - first) if physical else ())
        blocks[number] = data, nodes
        for block in data | nodes:
            leading[block] = leading.get(block, 0) + 1
    for number, sets in blocks.items():
        alone = [sum(leading[block] == 1 for block in part) for part in sets]
        print(number, store.inodes[number].mapped, store.inodes[number].reserved, *alone)

def show_limit(store):
    """What the store's file does not grow beyond, in bytes; 0 for no limit."""
    print(store.superblock.limit)

def check(store):
    findings = Check(store).run()
    print("\n".join(map(visible, findings)) or f"no damage found; the journal has {len(store.journal.records)} records")
    return len(findings) > 0

def main(arguments):
    commands = {("list", 2): show_list, ("space", 2): show_space, ("check", 2): check, ("limit", 2): show_limit, ("map", 3): show_map,
                ("cat", 3): cat, ("cat", 4): cat}
    command = commands.get((arguments[1] if len(arguments) > 1 else "", len(arguments)))
    if command is None:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        store = Store(arguments[0])
        for warning in store.warnings:
            print(f"warning: {warning}", file=sys.stderr)
        return int(command(store, *arguments[2:]) or 0)
    except (Damaged, Refused, OSError) as error:
        print(visible(f"{arguments[0]}: {error}"), file=sys.stderr)
        return 1

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
