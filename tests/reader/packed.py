"""Packed segments: FORMAT.md section 4.1."""

import base64
import hashlib
import zlib

from reader.basics import Refused
from reader.profile import ENTRY_BYTES_MAX

MAGIC = b"affiant/packed/v1\n"
WIDTH = 256
SEGMENT_BYTES_MAX = 64 << 20
BUNDLE_BYTES_MAX = WIDTH * (2 + ENTRY_BYTES_MAX)
BLANK = b'"prev":"","rnd":""'


def blocks_of(data):
    """The blocks of a segment."""
    if not data.startswith(MAGIC):
        raise Refused("it does not begin as a packed segment")
    at = len(MAGIC)
    count = int.from_bytes(data[at:at + 2], "big") if len(data) >= at + 2 else 0
    if not 1 <= count <= WIDTH:
        raise Refused("the number of its blocks is not 1 to 256")
    end = at + 2 + 4 * count
    if len(data) < end:
        raise Refused("it ends inside the lengths of its blocks")
    blocks, begin = [], end
    for place in range(at + 2, end, 4):
        size = int.from_bytes(data[place:place + 4], "big")
        blocks.append(data[begin:begin + size])
        begin += size
    if begin != len(data):
        raise Refused("the lengths of its blocks do not add up to the file")
    return blocks


def unpack(block):
    """The bundle that a block holds, byte for byte, and the leaf hashes of its entries."""
    if block[:1] == b"\x00":
        bundle = inflate(block[1:])
        return bundle, [hashlib.sha256(b"\x00" + entry).digest() for entry in entries(bundle)]
    if block[:1] != b"\x01" or len(block) < 1 + 32 + 16 * WIDTH:
        raise Refused("a block has no form of this version")
    previous, random = block[1:33], block[33:33 + 16 * WIDTH]
    lines = inflate(block[33 + 16 * WIDTH:]).split(b"\n")
    if lines.pop() != b"" or len(lines) != WIDTH:
        raise Refused("a block does not have 256 lines")
    bundle, leaves = bytearray(), []
    for number, line in enumerate(lines):
        head, blank, tail = line.partition(BLANK)
        entry = b"".join((head, b'"prev":"', base64.b64encode(previous), b'","rnd":"',
                          base64.b64encode(random[16 * number:16 * number + 16]), b'"', tail))
        if not blank or len(entry) > ENTRY_BYTES_MAX:
            raise Refused("a line is not an entry without `prev` and `rnd`")
        bundle += len(entry).to_bytes(2, "big") + entry
        previous = hashlib.sha256(b"\x00" + entry).digest()
        leaves.append(previous)
    return bytes(bundle), leaves


def entries(bundle):
    found, at = [], 0
    while at < len(bundle):
        size = int.from_bytes(bundle[at:at + 2], "big")
        if at + 2 + size > len(bundle):
            raise Refused("a block does not hold a bundle")
        found.append(bundle[at + 2:at + 2 + size])
        at += 2 + size
    if len(found) != WIDTH:
        raise Refused("a block does not hold a bundle")
    return found


def inflate(stream):
    """All that one whole zlib stream gives."""
    state = zlib.decompressobj()
    try:
        # One byte more than is allowed shows whether there is more.
        data = state.decompress(stream, BUNDLE_BYTES_MAX + 1)
    except zlib.error as error:
        raise Refused(f"a block is not a zlib stream: {error}") from error
    if not state.eof or state.unused_data or len(data) > BUNDLE_BYTES_MAX:
        raise Refused("a block is not one whole zlib stream")
    return data
