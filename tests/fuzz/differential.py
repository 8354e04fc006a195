#!/usr/bin/env python3
"""Asks both readers about the same bytes: verify.py's profile parser and the Rust decoder must agree on each.

    differential.py DECODER [--count N] [--seed S]

DECODER is the built example `decode_lines` of agent-evidence. Valid entries of every kind are made from verify.py's
own tables, then mutated. The seed is printed; the same seed and count give the same bytes. Exits 1 at the end if
the readers disagreed anywhere, with the first bytes they disagreed on.
"""

import argparse
import base64
import os
import random
import re
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from reader import profile  # noqa: E402  (the path is set on the line above)

NUMBERS = [0, 1, 3, 4, 9, 10, 99, 100, 255, 256, 65_535, 65_536, 2**31, 2**32 - 1, 2**32, 2**53 - 1, 2**53,
           2**63, 2**64 - 1, 2**64, 10**19, 10**20, 10**40]
TOKENS = [b'"', b"\\", b'\\"', b"\\\\", b"\\u0041", b"\\n", b"\\/", b"{", b"}", b"[", b"]", b",", b":", b" ", b"\n",
          b"\t", b"0", b"00", b"-1", b"1.0", b"1e3", b"null", b"true", b"false", b'{"b64":""}', b'{"b64":"AA=="}',
          b'{"b64":"/w=="}', b'{"b64":"/x=="}', b'{"b64":"/w"}', b'{"b64":"YQ=="}', b'{"b64":"Cg==","b64":"Cg=="}',
          b"\x00", b"\x1f", b"\x7f", b"\x80", b"\xc2\x80", b"\xc2\x9f", b"\xc2\xa0", b"\xc3\xbc", b"\xe2\x82\xac",
          b"\xed\xa0\x80", b"\xed\x9f\xbf", b"\xef\xbb\xbf", b"\xef\xbf\xbf", b"\xf0\x9f\x98\x80", b"\xf4\x90\x80\x80",
          b"\xc0\xaf", b"\xff", b',"cut":[]', b',"cut":["path"]', b'"marks":[]', b'"marks":["racy","racy"]', b"[]",
          b"=", b"==", b"[::]:0", b"[::1]:80", b"[::ffff:1.2.3.4]:1", b"[::1.2.3.4]:1", b"1.2.3.4:65536", b"%1"]
ADDRESSES = ["0.0.0.0:0", "255.255.255.255:65535", "256.1.1.1:1", "1.2.3:4", "01.2.3.4:5", "1.2.3.4:05", "1.2.3.4:",
             "[::]:0", "[::1]:65535", "[1::]:1", "[::ffff:1.2.3.4]:1", "[::ffff:102:304]:1", "[::FFFF:1.2.3.4]:1",
             "[::1.2.3.4]:1", "[::102:304]:1", "[1:0:0:2::3]:1", "[1::2:0:0:3]:1", "[1:0:2:3:4:5:6:7]:1",
             "[1::2:3:4:5:6:7]:1", "[0:0:0:0:0:0:0:1]:1", "[::1%eth0]:1", "[::1%1]:1", "[::1%0]:1", "[fe80::1]:22",
             "[A::1]:1", "[0a::1]:1", "[1:2:3:4:5:6:7:8]:9", "[1:2:3:4:5:6:7:8:9]:1", "[1:2:3:4:5:6:7::]:1",
             "[::2:3:4:5:6:7:8]:1", "[0:0:1::1]:1", "[0:0:1:0:0:1:0:0]:1", "[64:ff9b::1.2.3.4]:1", "::1:80", "[::1]",
             "localhost:1", "[::ffff:0:1.2.3.4]:1", "[:::1]:1", "[1:::2]:1", "[::ffff:0.0.0.0]:0", "[::ffff:0:0]:0"]


class Maker:
    """Random valid values of every form, as bytes of an entry."""

    def __init__(self, rng):
        self.rng = rng

    def upto(self, limit):
        if self.rng.random() < 0.5:
            return self.rng.choice([n for n in NUMBERS if n <= limit])
        return self.rng.getrandbits(self.rng.randint(1, limit.bit_length())) % (limit + 1)

    def text(self):
        roll = self.rng.random()
        if roll < 0.2:
            data = self.rng.randbytes(self.rng.randint(0, 12))
        elif roll < 0.4:
            data = "".join(chr(self.rng.choice([0x20, 0x22, 0x5c, 0x7e, 0x7f, 0x80, 0x9f, 0xa0, 0xfc, 0x20ac, 0xd7ff,
                                                0xe000, 0xfffd, 0xffff, 0x10000, 0x10ffff]))
                           for _ in range(self.rng.randint(0, 6))).encode()
        else:
            data = self.rng.choice([b"/usr/bin/python3", b"python3", b"", b'a"b', b"a\\b", b"/tmp/\xff", b"line\n"])
        return self.text_of(data)

    @staticmethod
    def text_of(data):
        if profile.is_plain(data):
            return b'"' + data.replace(b"\\", b"\\\\").replace(b'"', b'\\"') + b'"'
        return b'{"b64":"' + base64.b64encode(data) + b'"}'

    def address(self):
        if self.rng.random() < 0.5:
            host = ".".join(str(self.rng.choice([0, 1, 9, 10, 127, 255])) for _ in range(4))
        else:
            groups = [self.rng.choice([0, 0, 0, 1, 0xA, 0xFFFF, self.rng.getrandbits(16)]) for _ in range(8)]
            if self.rng.random() < 0.2:
                groups[:6] = [0, 0, 0, 0, 0, 0xFFFF]
            host = "[" + profile.ipv6_text(groups) + "]"
        return f'"{host}:{self.upto(65_535)}"'.encode()

    def value(self, name):
        if name.startswith("[]"):
            return b"[" + b",".join(self.value(name[2:]) for _ in range(self.rng.choice([0, 1, 1, 2, 3]))) + b"]"
        base, _, size = name.partition(":")
        simple = {
            "u32": lambda: b"%d" % self.upto(profile.U32_MAX),
            "u53": lambda: b"%d" % self.upto(profile.U53_MAX),
            "u64": lambda: b'"%d"' % self.upto(profile.U64_MAX),
            "class": lambda: b"%d" % self.rng.randrange(4),
            "bool": lambda: self.rng.choice([b"true", b"false"]),
            "b64": lambda: b'"' + base64.b64encode(self.rng.randbytes(int(size))) + b'"',
            "hex": lambda: b'"' + self.rng.randbytes(int(size)).hex().encode() + b'"',
            "kind": lambda: b'"' + self.rng.choice(list(profile.KINDS)).encode() + b'"',
            "label": lambda: b"[" + self.text() + b"," + self.text() + b"]",
            "kind_count": lambda: b"[" + self.value("kind") + b"," + self.value("u64") + b"]",
            "kernel_number": lambda: b"[%s,%s,%s]" % tuple(self.value(form) for form in ("u32", "class", "u64")),
            "text": self.text,
            "value": self.text,
            "base64": lambda: b'"' + base64.b64encode(self.rng.randbytes(self.rng.randrange(9))) + b'"',
            "address": self.address,
        }
        if base in simple:
            return simple[base]()
        shape, line = profile.FORMS[name]
        if shape == "object":
            return self.members(line)
        if shape == "row":
            return b"[" + b",".join(self.value(m.partition("=")[2]) for m in line.split()) + b"]"
        words = line.split()
        if shape == "words":
            return b'"' + self.rng.choice(words).encode() + b'"'
        chosen = sorted(self.rng.sample(range(len(words)), self.rng.randint(1, 4)))
        return b"[" + b",".join(b'"' + words[n].encode() + b'"' for n in chosen) + b"]"

    def members(self, line):
        parts = []
        for member in line.split():
            key, _, form = member.partition("=")
            absent = form == "marks" or key.endswith("?")
            if absent and self.rng.random() < 0.5:
                continue
            parts.append(b'"' + key.rstrip("?").encode() + b'":' + self.value(form))
        return b"{" + b",".join(parts) + b"}"

    def entry(self):
        kind = self.rng.choice(list(profile.KINDS))
        index = self.value("u53")
        parts = [b'{"v":1,"i":' + index, b'"kind":"' + kind.encode() + b'"']
        for member in profile.COMMON.split():
            key, _, form = member.partition("=")
            itself = kind == "issued" and key == "s?"
            if key.endswith("?") and not itself and self.rng.random() < 0.5:
                continue
            parts.append(b'"' + key.rstrip("?").encode() + b'":' + (index if itself else self.value(form)))
        parts.append(b'"body":' + self.members(profile.KINDS[kind][1]))
        if self.rng.random() < 0.1:
            parts.append(b'"cut":[' + b",".join(self.text() for _ in range(self.rng.randint(1, 3))) + b"]")
        return b",".join(parts) + b"}"


class Mutator:
    """Changes entries in ways that a writer could try."""

    def __init__(self, rng, maker):
        self.rng, self.maker = rng, maker
        self.ways = [self.flip, self.insert, self.delete, self.repeat, self.swap_bytes, self.cut, self.extend,
                     self.number, self.member_gone, self.member_twice, self.member_moved, self.splice, self.string,
                     self.address, self.value, self.base64_bits, self.huge]

    def mutate(self, entry, other):
        for _ in range(self.rng.choice([1, 1, 1, 1, 2, 3])):
            entry = self.rng.choice(self.ways)(entry, other)
        return entry

    def place(self, entry):
        return self.rng.randrange(len(entry) + 1)

    def flip(self, entry, _):
        at = self.place(entry)
        return entry[:at] + bytes([self.rng.randrange(256)]) + entry[at + 1:]

    def insert(self, entry, _):
        at = self.place(entry)
        return entry[:at] + self.rng.choice(TOKENS) + entry[at:]

    def delete(self, entry, _):
        at = self.place(entry)
        return entry[:at] + entry[at + self.rng.choice([1, 1, 2, 5]):]

    def repeat(self, entry, _):
        at, size = self.place(entry), self.rng.randint(1, 20)
        return entry[:at + size] + entry[at:]

    def swap_bytes(self, entry, _):
        at = self.place(entry)
        return entry[:at] + entry[at + 1:at + 2] + entry[at:at + 1] + entry[at + 2:]

    def cut(self, entry, _):
        return entry[:self.place(entry)]

    def extend(self, entry, _):
        return entry + self.rng.choice([b"\n", b" ", b"}", b"\x00", entry])

    def replace(self, entry, pattern, make):
        found = list(re.finditer(pattern, entry))
        if not found:
            return entry
        match = self.rng.choice(found)
        return entry[:match.start()] + make(match) + entry[match.end():]

    def number(self, entry, _):
        return self.replace(entry, rb"[0-9]+", lambda m: self.rng.choice(
            [b"%d" % self.rng.choice(NUMBERS), b"0" + m[0], m[0] + b"0", b'"' + m[0] + b'"', b"-" + m[0], b""]))

    MEMBER = rb'"[a-z_0-9]+":("[^"]*"|[0-9]+|\[[^\[\]]*\]|\{[^{}]*\}|true|false)'

    def member_gone(self, entry, _):
        with_comma = self.rng.choice([self.MEMBER + b",?", b",?" + self.MEMBER])
        return self.replace(entry, with_comma, lambda m: b"")

    def member_twice(self, entry, _):
        return self.replace(entry, self.MEMBER, lambda m: m[0] + b"," + m[0])

    def member_moved(self, entry, _):
        return self.replace(entry, b"(" + self.MEMBER + b"),(" + self.MEMBER + b")", lambda m: m[3] + b"," + m[1])

    def splice(self, entry, other):
        return entry[:self.place(entry)] + other[self.place(other):]

    def string(self, entry, _):
        data = self.rng.randbytes(self.rng.randint(0, 4)) if self.rng.random() < 0.5 else self.rng.choice(TOKENS)
        wrong = b'{"b64":"' + base64.b64encode(data) + b'"}' if self.rng.random() < 0.5 else b'"' + data + b'"'
        return self.replace(entry, rb'(?<=:)"[^"]*"', lambda m: self.rng.choice([self.maker.text_of(data), wrong]))

    def address(self, entry, _):
        return self.replace(entry, rb'"[0-9a-f.:\[\]]+:[0-9]+"',
                            lambda m: b'"' + self.rng.choice(ADDRESSES).encode() + b'"')

    def value(self, entry, other):
        found = re.findall(self.MEMBER, other)
        return self.replace(entry, rb'(?<=":)("[^"]*"|[0-9]+)', lambda m: self.rng.choice(found or [b"0"]))

    def base64_bits(self, entry, _):
        return self.replace(entry, rb"[A-Za-z0-9+/]=", lambda m: self.rng.choice(
            [bytes([m[0][0] ^ 1]) + b"=", m[0][:1], m[0] + b"=", m[0][:1] + b"A", b"-=", b"_="]))

    def huge(self, entry, _):
        if self.rng.random() < 0.9:
            return entry
        size = self.rng.choice([1_000, profile.ENTRY_BYTES_MAX - len(entry), profile.ENTRY_BYTES_MAX - len(entry) + 1])
        return self.replace(entry, rb'(?<="comm":")', lambda m: self.rng.choice([b"a", b"\\"]) * max(size, 0))


def answers(decoder, entries):
    lines = "".join(entry.hex() + "\n" for entry in entries)
    done = subprocess.run([decoder], input=lines, capture_output=True, text=True, check=True)
    found = done.stdout.splitlines()
    if len(found) != len(entries):
        raise SystemExit(f"the decoder answered {len(found)} of {len(entries)} lines")
    return found


def own_answer(entry):
    try:
        profile.decode(entry)
    except profile.Refused as why:
        return f"err {why}"
    return "ok"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("decoder")
    parser.add_argument("--count", type=int, default=200_000, help="how many mutated entries")
    parser.add_argument("--seed", type=int, default=None)
    options = parser.parse_args()
    seed = random.SystemRandom().getrandbits(32) if options.seed is None else options.seed
    print(f"seed {seed}, {options.count} mutations", flush=True)
    rng = random.Random(seed)
    maker = Maker(rng)
    mutator = Mutator(rng, maker)
    done = accepted = 0
    disagreements = []
    while done < options.count:
        valid = [maker.entry() for _ in range(250)]
        mutated = [mutator.mutate(entry, rng.choice(valid)) for entry in valid for _ in range(4)]
        for entry, theirs in zip(valid + mutated, answers(options.decoder, valid + mutated)):
            mine = own_answer(entry)
            accepted += mine == "ok"
            if (mine == "ok") != (theirs == "ok"):
                disagreements.append((entry, mine, theirs))
        for entry in valid:
            if own_answer(entry) != "ok":
                disagreements.append((entry, own_answer(entry), "(made as a valid entry)"))
        done += len(mutated)
    for entry, mine, theirs in disagreements[:20]:
        print(f"{entry!r}\n  verify.py: {mine}\n  decoder:   {theirs}")
    print(f"{done} mutations, {accepted} accepted by verify.py, {len(disagreements)} disagreements")
    return 1 if disagreements else 0


if __name__ == "__main__":
    sys.exit(main())
