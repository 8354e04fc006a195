#!/usr/bin/env python3
"""Asks both verifiers about the same logs: verify.py and affiant-verify must agree on exit code and findings.

    logs.py AFFIANT_VERIFY [--count N] [--seed S] [--keep DIR]

Each log is made here from random numbers, with one to three things wrong with it: a rule broken by a writer who
signs what he wrote, or a file damaged afterward. The seed is printed; the same seed and count give the same logs.
"""

import argparse
import base64
import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import zlib

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
import verify  # noqa: E402  (the path is set on the line above)
from reader import kept, profile, rules, signed  # noqa: E402
from differential import Maker, Mutator  # noqa: E402

ORIGIN = "affiant.example/host"


class Key:
    """An Ed25519 key pair, RFC 8032 section 5.1.5; for tests only, not constant in time."""

    def __init__(self, seed):
        digest = hashlib.sha512(seed).digest()
        self.scalar = (int.from_bytes(digest[:32], "little") & (2**254 - 8)) | 2**254
        self.prefix = digest[32:]
        self.public = self.compress(signed.multiply(self.scalar, signed.BASE))

    @staticmethod
    def compress(point):
        inverse = pow(point[2], signed.P - 2, signed.P)
        x, y = point[0] * inverse % signed.P, point[1] * inverse % signed.P
        return (y | (x & 1) << 255).to_bytes(32, "little")

    def sign(self, message):
        r = int.from_bytes(hashlib.sha512(self.prefix + message).digest(), "little") % signed.L
        point = self.compress(signed.multiply(r, signed.BASE))
        k = int.from_bytes(hashlib.sha512(point + self.public + message).digest(), "little") % signed.L
        return point + ((r + k * self.scalar) % signed.L).to_bytes(32, "little")


def b64(data):
    return b'"' + base64.b64encode(data) + b'"'


def vkey(name, public):
    return name + "+" + signed.key_id(name, public).hex() + "+" + base64.b64encode(b"\x01" + public).decode()


class Writer:
    """A log in memory. `faults` are the rules it breaks, each at one random place."""

    def __init__(self, rng, faults):
        self.rng, self.maker = rng, Maker(rng)
        self.faults = list(faults)
        self.shift = 0  # what is added to the index that entries state
        self.entries, self.leaves = [], []
        self.told = []  # kind and session of each
        self.held = set()
        self.control = 0
        self.sessions = {}  # index of `issued`: [next, hash, counts, id]
        self.ended = []
        self.workloads, self.unknowns = [], []
        self.log_key = KEYS[0]
        self.epochs = 0
        self.epoch_key = None
        self.capture = None
        self.next = {}
        self.pending = []  # numbers taken and not yet written
        self.lost = []

    def breaks(self, fault, chance=0.2):
        """Whether to break this rule now; each fault is used once."""
        if fault in self.faults and self.rng.random() < chance:
            self.faults.remove(fault)
            return True
        return False

    def body(self, kind, **given):
        """A body of this kind with random members but those given, as bytes; None leaves one out."""
        parts = []
        for member in profile.KINDS[kind][1].split():
            key, _, form = member.partition("=")
            optional = key.endswith("?") or form == "marks"
            key = key.rstrip("?")
            if key in given:
                value = given[key]
            else:
                value = None if optional and self.rng.random() < 0.5 else self.maker.value(form)
            if value is not None:
                parts.append(b'"' + key.encode() + b'":' + value)
        return b"{" + b",".join(parts) + b"}"

    def append(self, kind, body, q=None, session=None, workload=None):
        index = len(self.entries)
        self.shift = self.shift or self.breaks("index_wrong") * self.rng.choice([-1, 1, 3])
        if self.shift and self.rng.random() < 0.1:
            self.shift = 0
        own = max(0, index + self.shift)
        parts = [b'{"v":1', b'"i":%d' % own, b'"kind":"' + kind.encode() + b'"',
                 b'"wall":"%d"' % (1_700_000_000_000_000_000 + index), b'"boot":"%d"' % index]
        if q is not None:
            parts.append(b'"q":[%d,%d,"%d"]' % q)
        if workload is None and self.workloads and self.rng.random() < 0.3:
            workload = self.rng.choice(self.workloads)
        if self.breaks("reference_wrong"):
            workload = self.rng.choice([0, index, index + 1])
        if workload is not None:
            parts.append(b'"w":%d' % workload)
        number = None
        if kind == "issued":
            session, number = own, 0
        elif session is not None:
            number = self.sessions[session][0] if session in self.sessions else 1
        if self.breaks("session_unknown") and kind not in ("issued", "revoked"):
            session, number = self.rng.choice([0, index, index + 5]), 1
        if self.breaks("session_number_wrong"):
            number = self.rng.choice([None, 0, 1, (number or 0) + 1, 2**53 - 1])
        control = self.control if profile.KINDS[kind][0] else None
        if self.breaks("control_number_wrong"):
            control = self.rng.choice([None, 0, self.control + 1, 2**53 - 1])
        for key, value in (("s", session), ("n", number), ("c", control)):
            if value is not None:
                parts.append(b'"%s":%d' % (key.encode(), value))
        previous = self.leaves[-1] if self.leaves else bytes(32)
        if self.breaks("previous_mismatch"):
            previous = self.rng.randbytes(32)
        parts += [b'"prev":' + b64(previous), b'"rnd":' + b64(self.rng.randbytes(16)), b'"body":' + body]
        entry = b",".join(parts) + b"}"
        if self.breaks("entry_malformed"):
            entry = Mutator(self.rng, self.maker).mutate(entry, entry)[:profile.ENTRY_BYTES_MAX]
        leaf = verify.leaf_hash(entry)
        self.entries.append(entry)
        self.leaves.append(leaf)
        self.told.append((kind, session))
        self.control = self.control + 1 if control is None and profile.KINDS[kind][0] else \
            self.control if control is None else control + 1
        if kind == "issued":
            self.sessions[own] = [1, hashlib.sha256(b"affiant/session/v1" + leaf).digest(), {}, None]
        elif session in self.sessions:
            state = self.sessions[session]
            state[0] = (state[0] if number is None else number) + 1
            state[1] = hashlib.sha256(state[1] + leaf).digest()
            if kind in rules.CLASS_OF:
                state[2][kind] = state[2].get(kind, 0) + 1
        return own

    def genesis(self):
        origin, key, form = ORIGIN, vkey(ORIGIN, self.log_key.public), b"1"
        if self.breaks("genesis_wrong", 1):
            way = self.rng.randrange(5)
            origin = "another" if way == 0 else origin
            key = [key, vkey("another", self.log_key.public), "x", key + "=", vkey(ORIGIN, KEYS[3].public)][way]
            form = b"2" if self.rng.random() < 0.3 else form
        tier = b'"T0"' if self.rng.random() < 0.9 else b'"T2"'
        body = self.body("genesis", format=form, origin=b'"' + origin.encode() + b'"',
                         log_key=b'"' + key.encode() + b'"', key_tier=tier)
        if self.breaks("genesis_missing", 1):
            self.append("identified" if self.rng.random() < 0.2 else "scope", self.body("scope"))
        self.append("genesis", body)

    def epoch(self):
        index = len(self.entries)
        how = "first" if self.epochs == 0 else self.rng.choice(["continued", "orphan"])
        number, first_size = self.epochs, index + 1
        key = KEYS[1 + (self.epochs + 1) % 2]
        named = how
        if self.breaks("epoch_wrong", 0.5):
            way = self.rng.randrange(3)
            number += way == 0
            first_size += (way == 1) * self.rng.choice([-1, 1])
            if way == 2:
                named = self.rng.choice(["first", "continued", "orphan"])
        fields = (ORIGIN.encode(), number.to_bytes(8, "big"), key.public, first_size.to_bytes(8, "big"), named.encode(),
                  b"")
        joined = b"".join(len(field).to_bytes(4, "big") + field for field in fields)
        statement = hashlib.sha256(b"affiant/epoch/v1" + joined).digest()
        log_signature = self.log_key.sign(statement)
        previous = self.epoch_key.sign(statement) if how == "continued" else None
        if self.breaks("epoch_forged", 0.5):
            if previous is not None and self.rng.random() < 0.5:
                previous = bytes(64)
            else:
                log_signature = self.rng.choice([KEYS[3].sign(statement), self.rng.randbytes(64)])
        self.append("epoch", self.body("epoch", number=b"%d" % number, public_key=b64(key.public),
                                       first_size=b"%d" % first_size, how=b'"%s"' % named.encode(),
                                       sig_log=b64(log_signature), sig_previous=previous and b64(previous),
                                       counter=None, attest=None, sig_attest=None))
        self.epochs, self.epoch_key = number + 1, key

    def arm(self):
        resumed = self.capture is not None and self.rng.random() < 0.5
        if not resumed:
            # Half the time the power failed: what was on its way is gone.
            if self.rng.random() < 0.5:
                self.pending, self.lost = [], []
            self.flush()
            self.account_lost()
            self.capture, self.next = self.rng.randbytes(16).hex().encode(), {}
        self.append("armed", self.body("armed", capture_id=b'"' + self.capture + b'"',
                                       resumed=b"true" if resumed else b"false", key_tier=b'"T0"'))
        self.armed = True

    def take(self, number_class):
        cpu = self.rng.randrange(2)
        seq = self.next.get((cpu, number_class), 0)
        self.next[cpu, number_class] = seq + 1
        return cpu, number_class, seq

    def act(self):
        kind, number_class = self.rng.choice(list(rules.CLASS_OF.items()))
        number = self.take(number_class)
        if self.rng.random() < 0.1 or self.breaks("number_hole", 0.3):
            self.lost.append(number)
            if self.breaks("number_hole", 1):
                self.lost.pop()
            return
        self.pending.append((kind, number))
        if self.rng.random() < 0.7:
            self.flush()

    def flush(self):
        self.rng.shuffle(self.pending)
        for kind, number in self.pending:
            if self.breaks("number_repeated"):
                number = (number[0], number[1], max(0, number[2] - self.rng.randrange(3)))
            if self.breaks("kernel_number_wrong"):
                number = self.rng.choice([None, (number[0], (number[1] + 1) % 4, number[2])])
            session = self.rng.choice([None] + list(self.sessions)) if self.rng.random() < 0.5 else None
            if self.ended and self.breaks("session_ended", 1):
                session = self.rng.choice(self.ended)
            self.append(kind, self.body(kind), q=number, session=session)
        self.pending = []
        if self.breaks("kernel_number_wrong", 0.1):
            self.append("workload", self.body("workload"), q=(0, 0, 0))

    def account_lost(self):
        if not self.lost:
            return
        ranges = [b'[%d,%d,"%d","%d"]' % (cpu, number_class, seq, seq) for cpu, number_class, seq in self.lost]
        count = len(ranges)
        cause = self.rng.choice([b"ring_full", b"decode", b"not_observed"])
        if self.breaks("gap_count_wrong", 0.7):
            count += 1
            if self.rng.random() < 0.5:
                ranges[0] = b'[0,0,"9","8"]'
        if self.breaks("loss_unexplained", 0.7):
            cause = b"unexplained"
        if self.breaks("number_repeated", 0.3):
            ranges.append(b'[0,0,"0","%d"]' % self.rng.choice([0, 2, 2**64 - 1]))
        self.lost = []
        self.append("gap", self.body("gap", cause=b'"' + cause + b'"', capture_id=b'"' + self.capture + b'"',
                                     ranges=b"[" + b",".join(ranges) + b"]", count=b'"%d"' % count))

    def state(self, kind, **more):
        self.flush()
        self.account_lost()
        capture, rows, sessions = self.capture, [], []
        for (cpu, number_class), following in sorted(self.next.items()):
            settled = following
            if self.breaks("counter_wrong"):
                following, settled = self.rng.choice([(0, 0), (following, following + 1), (0, 2**64 - 1)])
            elif self.rng.random() < 0.2:
                settled = self.rng.randrange(following + 1)
            if self.breaks("number_hole", 0.2):
                following += 3
                settled = following
            rows.append(b'[%d,%d,"%d","%d","%d"]' % (cpu, number_class, following, 0, settled))
        for session, (following, running, _, _) in self.sessions.items():
            if self.breaks("session_hash_wrong", 0.4):
                wrong = [(following + 1, running), (following, bytes(32)), (2**53 - 1, running)]
                following, running = self.rng.choice(wrong)
            sessions.append(b"[%d,%d,%s]" % (session, following - 1, b64(running)))
        if self.breaks("session_unknown", 0.4):
            sessions.append(b"[0,0,%s]" % b64(bytes(32)))
        if self.ended and self.breaks("session_hash_wrong", 0.4):
            sessions.append(b"[%d,0,%s]" % (self.ended[-1], b64(bytes(32))))
        if self.breaks("event_outside_run", 0.5):
            capture = b"0" * 32
        self.append(kind, self.body(kind, capture_id=b'"' + capture + b'"', counters=b"[" + b",".join(rows) + b"]",
                                    sessions=b"[" + b",".join(sessions) + b"]", **more))

    def heartbeat(self):
        ok = b"false" if self.breaks("hooks_not_attached", 0.5) else b"true"
        self.state("heartbeat", hooks_ok=ok)

    def issue(self):
        ident = self.maker.text()
        index = self.append("issued", self.body("issued", id=ident, parent=None))
        self.sessions[index][3] = ident

    def revoke(self):
        session = self.rng.choice(list(self.sessions))
        following, running, counts, ident = self.sessions[session]
        acts = [b'["%s","%d"]' % (kind.encode(), count) for kind, count in counts.items()]
        self.rng.shuffle(acts)
        named = session
        if self.breaks("revoked_wrong", 0.6):
            way = self.rng.randrange(6)
            ident = b'"else"' if way == 0 else ident
            following += way == 1
            acts = {2: acts[1:], 3: acts + acts[:1], 4: acts + [b'["open","0"]']}.get(way, acts)
            named = None if way == 5 else named
        if self.breaks("session_hash_wrong", 0.6):
            running = bytes(32)
        self.append("revoked", self.body("revoked", id=ident, acts=b"[" + b",".join(acts) + b"]",
                                         entries=b'"%d"' % following, hash=b64(running)), session=named)
        del self.sessions[session]
        self.ended.append(session)

    def unknown(self):
        self.unknowns.append(self.append("unknown", self.body("unknown")))

    def identify(self):
        of, workload = self.rng.choice(self.unknowns), self.rng.choice(self.workloads)
        if self.breaks("reference_wrong", 0.5):
            of, workload = self.rng.choice([(workload, of), (of, 0), (0, workload)])
        self.append("identified", self.body("identified", of=b"%d" % of, workload=b"%d" % workload))

    def write(self, steps):
        self.genesis()
        self.epoch()
        self.append("recovered", self.body("recovered"))
        if self.breaks("event_outside_run", 0.3):
            self.append("exit", self.body("exit"), q=(0, 0, 0))
        self.arm()
        for _ in range(steps):
            ways = [self.act] * 12 + [self.heartbeat, self.issue, self.unknown, self.workload, self.other]
            ways += [self.revoke] * bool(self.sessions) + [self.identify] * bool(self.unknowns and self.workloads)
            ways += [self.hold] * bool(self.sessions or self.ended)
            if self.rng.random() < 0.05:
                ways = [self.epoch, self.arm] + [self.prune] * (len(self.entries) > 256)
            self.rng.choice(ways)()
        if self.breaks("genesis_repeated", 1):
            self.genesis()
        if self.rng.random() < 0.5:
            self.state("disarmed", **({"cause": b'"upgrade"'} if self.rng.random() < 0.3 else {}))
            if self.rng.random() < 0.2:
                self.arm()
        else:
            self.flush()

    def workload(self):
        self.workloads.append(self.append("workload", self.body("workload")))

    def hold(self):
        session = self.rng.choice([*self.sessions, *self.ended])
        on = self.rng.random() < 0.7
        (self.held.add if on else self.held.discard)(session)
        self.append("hold", self.body("hold", session=b"%d" % session, on=b"true" if on else b"false"))

    def prune(self):
        """Says that entries before some bundle are not kept any more, mostly rightly."""
        first = len(self.entries) // 256 * 256
        first = first if self.rng.random() < 0.9 else self.rng.choice([0, 255, first + 256, len(self.entries)])
        count = sum(by_kind(kind) for kind, _ in self.told[:first]) + (self.rng.random() < 0.1)
        self.append("pruned", self.body("pruned", first=b"%d" % first, kept=b'"%d"' % count))

    def other(self):
        kind = self.rng.choice(["scope", "process", "recovered"])
        self.append(kind, self.body(kind), session=self.rng.choice([None] + list(self.sessions)))


def by_kind(kind):
    return profile.KINDS[kind][0] or kind in kept.KEPT_KINDS


KEYS = [Key(bytes([number]) * 32) for number in range(4)]
FAULTS = ["index_wrong", "reference_wrong", "session_unknown", "session_number_wrong", "control_number_wrong",
          "previous_mismatch", "entry_malformed", "genesis_wrong", "genesis_missing", "epoch_wrong", "epoch_forged",
          "number_hole", "number_repeated", "kernel_number_wrong", "session_ended", "gap_count_wrong",
          "loss_unexplained", "counter_wrong", "session_hash_wrong", "event_outside_run", "hooks_not_attached",
          "revoked_wrong", "genesis_repeated"]


class Disk:
    """A log as files, and what can be done to them."""

    def __init__(self, rng, writer, place):
        self.rng, self.writer, self.place = rng, writer, place
        self.log = os.path.join(place, "log")
        self.tree = verify.Tree()
        self.roots = [self.tree.root()]
        for leaf in writer.leaves:
            for level, tile, hashes in self.tree.append(leaf):
                self.put(verify.tile_path(level, tile, 256), b"".join(hashes))
            self.roots.append(self.tree.root())
        for level, tile, hashes in self.tree.partial_tiles():
            self.put(verify.tile_path(level, tile, len(hashes)), b"".join(hashes))
        for number in range(0, len(writer.entries), 256):
            part = writer.entries[number:number + 256]
            joined = b"".join(len(entry).to_bytes(2, "big") + entry for entry in part)
            self.put(verify.tile_path("entries", number // 256, len(part)), joined)
        self.checkpoint(ORIGIN, self.tree.size, self.tree.root())

    def put(self, name, data):
        path = os.path.join(self.log, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        if os.path.isdir(path):
            os.rmdir(path)
        with open(path, "wb") as file:
            file.write(data)

    def checkpoint(self, origin, size, root, keys=None):
        text = f"{origin}\n{size}\n{base64.b64encode(root).decode()}\n"
        lines = [self.line(text, origin, self.writer.log_key),
                 self.line(text, origin + "/epoch", self.writer.epoch_key)]
        if keys is not None:
            lines = keys(text, lines)
        self.put("checkpoint", (text + "\n" + "".join(lines)).encode())

    @staticmethod
    def line(text, name, key, signature=None):
        blob = signed.key_id(name, key.public) + (signature or key.sign(text.encode()))
        return f"\u2014 {name} {base64.b64encode(blob).decode()}\n"

    def prune(self):
        """Keeps of the first bundles what must be kept, perhaps more or less."""
        writer, rng = self.writer, self.rng
        bundles = rng.randrange(len(writer.entries) // 256 + 1)
        if not bundles:
            return
        statements = [index for index in range(bundles * 256) if writer.told[index][0] in ("heartbeat", "disarmed")]
        less, more = rng.choice([0, 0, 0, 0.01, 0.3]), rng.choice([0, 0, 0.05, 0.5])
        held = writer.held if rng.random() < 0.8 else set()

        def keeps(index):
            kind, session = writer.told[index]
            must = by_kind(kind) or session in held or not statements or index >= statements[-1]
            return rng.random() >= less if must else rng.random() < more

        chosen = [keeps(index) for index in range(bundles * 256)]

        def items(first, height):
            if not any(chosen[first:first + (1 << height)]):
                level = writer.leaves[first:first + (1 << height)]
                while len(level) > 1:
                    level = [verify.node_hash(*level[at:at + 2]) for at in range(0, len(level), 2)]
                return bytes([0, 0, height]) + level[0]
            if height == 0:
                return len(writer.entries[first]).to_bytes(2, "big") + writer.entries[first]
            return items(first, height - 1) + items(first + (1 << height - 1), height - 1)

        data = b"".join(items(256 * bundle, 8) for bundle in range(bundles))
        if rng.random() < 0.1:
            data = self.edited(data)
        self.put("kept/000", kept.MAGIC + bundles.to_bytes(2, "big") + zlib.compress(data))
        for bundle in range(bundles):
            if rng.random() < 0.9:
                os.remove(os.path.join(self.log, verify.tile_path("entries", bundle, 256)))
                if rng.random() < 0.9:
                    os.remove(os.path.join(self.log, verify.tile_path(0, bundle, 256)))

    def files(self):
        return sorted(os.path.relpath(os.path.join(folder, name), self.log)
                      for folder, _, names in os.walk(self.log) for name in names)

    def damage(self):
        way = self.rng.randrange(14)
        name = self.rng.choice(self.files())
        path = os.path.join(self.log, name)
        with open(path, "rb") as file:
            data = bytearray(file.read())
        size, root = self.tree.size, self.tree.root()
        if not os.path.isdir(os.path.join(self.log, "tile")):
            return
        if way <= 2 and data:
            data[self.rng.randrange(len(data))] ^= 1 << self.rng.randrange(8)
            self.put(name, data)
        elif way == 3:
            os.remove(path)
        elif way == 4:
            self.put(name, data[:self.rng.randrange(len(data) + 1)])
        elif way == 5:
            self.put(name, data + self.rng.choice([b"\0", b"\0\0", bytes(data[:40])]))
        elif way == 6:
            self.checkpoint(ORIGIN, size, self.rng.randbytes(32))
        elif way == 7:
            wrong = [0, 1, size - 1, size + 1, 2**32, 2**53 - 1, 2**53, 2**64 - 1]
            self.checkpoint(ORIGIN, self.rng.choice(wrong), root)
        elif way == 8:
            self.checkpoint(self.rng.choice(["another.example", ORIGIN + "/x", "n" * 255, "n" * 250]), size, root)
        elif way == 9:
            other = KEYS[3]
            self.checkpoint(ORIGIN, size, root, lambda text, lines: self.rng.choice([
                lines[:1], lines[1:], lines + lines, lines[::-1], [self.line(text, ORIGIN, other)] + lines,
                [self.line(text, ORIGIN, other), lines[1]],
                [self.line(text, ORIGIN, self.writer.log_key, other.sign(text.encode())), *lines],
                [lines[0], self.line(text, ORIGIN + "/epoch", self.writer.epoch_key, bytes(64))],
                [lines[0], self.line(text, ORIGIN + "/epoch", KEYS[1])], lines + ["\u2014 x AAAAAAA=\n"] * 63]))
        elif way == 10:
            folder = os.path.join(self.log, self.rng.choice(["tile", "tile/0", "tile/entries", "tile/1"]))
            shutil.rmtree(folder, ignore_errors=True)
        elif way == 11:
            os.remove(path)
            os.makedirs(path)
        else:
            path = os.path.join(self.log, "checkpoint")
            if os.path.isfile(path):
                with open(path, "rb") as file:
                    self.put("checkpoint", self.edited(file.read()))

    def edited(self, data):
        """A text with one small change that a parser could pass over."""
        at, size = self.rng.randrange(len(data) + 1), self.rng.randrange(3)
        piece = self.rng.choice([b"", b" ", b"\n", b"\n\n", b"\r", b"\t", b"\x00", b"\x7f", b"\xc2\x85", b"\xc2\xa0",
                                 b"\xff", b"+", b"=", b"0", b"A", b"/", b"\xe2\x80\x94 ", b"\xe2\x80\xa8", b"\xef\xbb\xbf", b"#",
                                 b'"', b"_", b"0x1", b"\\", b",", b"[", b"1.0", data[at - 30:at]])
        return data[:at] + piece + data[at + size:]

    def trust(self):
        """Writes a trust file, perhaps one of another log; gives its path or None."""
        if self.rng.random() < 0.2:
            return None
        writer, rng = self.writer, self.rng
        sizes = rng.sample(range(len(self.roots)), min(len(self.roots), rng.randrange(3)))
        heads = [(size, self.roots[size]) for size in sizes]
        first_epoch = KEYS[2].public
        lines = {"version": "1", "origin": f'"{ORIGIN}"', "log_key": f'"{vkey(ORIGIN, writer.log_key.public)}"',
                 "genesis": b64(writer.leaves[0]).decode(), "first_epoch_key": b64(first_epoch).decode(),
                 "minimum_tier": '"T0"',
                 "required": json.dumps(rng.sample(rules.CLAIMS, rng.randrange(4)) if rng.random() < 0.3 else
                                        ["integrity", "authenticity", "continuity", "coverage", "sessions"])}
        if rng.random() < 0.3:
            way = rng.randrange(10)
            if way == 0:
                lines["origin"], lines["log_key"] = '"other"', f'"{vkey("other", writer.log_key.public)}"'
            elif way == 1:
                lines["log_key"] = f'"{vkey(ORIGIN, KEYS[3].public)}"'
            elif way == 2:
                lines["genesis"] = b64(bytes(32)).decode()
            elif way == 3:
                lines["first_epoch_key"] = b64(KEYS[3].public).decode()
            elif way == 4:
                lines["minimum_tier"] = rng.choice(['"T1"', '"T3"', '"T9"', "1"])
            elif way == 5:
                heads.append((rng.choice([len(self.roots), 2**53 - 1, 2**53]), bytes(32)))
            elif way == 6:
                heads.append((rng.randrange(len(self.roots)), bytes(32)))
            elif way == 7:
                lines.pop(rng.choice(list(lines)))
            elif way == 8:
                lines["extra"] = "1"
            else:
                lines["version"] = rng.choice(["2", "true", '"1"', "1.0"])
        text = "".join(f"{key} = {value}\n" for key, value in lines.items())
        text += "".join(f"[[head]]\nsize = {size}\nroot = {b64(root).decode()}\n" for size, root in heads)
        data = text.encode()
        if rng.random() < 0.1:
            data = self.edited(data)
        path = os.path.join(self.place, "trust.toml")
        with open(path, "wb") as file:
            file.write(data)
        return path


def compare(program, place, trust, strict):
    """What each says: (exit code, names of findings)."""
    log = os.path.join(place, "log")
    code, _, outcome, why = verify.check(log, trust, strict)
    mine = (code, sorted((name, str(index)) for name, index, _ in outcome.findings) if outcome else [])
    command = [program, log, "--json"] + (["--trust", trust] if trust else []) + (["--strict"] if strict else [])
    done = subprocess.run(command, capture_output=True, timeout=60, check=False)
    report = json.loads(done.stdout) if done.stdout.strip() else {"findings": []}
    theirs = (done.returncode, sorted((finding["name"], str(finding["index"])) for finding in report["findings"]))
    return mine, theirs, why, done.stderr.decode(errors="replace").strip()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("program")
    parser.add_argument("--count", type=int, default=1_000)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--keep", default=None, help="directory for the logs that the verifiers disagree on")
    options = parser.parse_args()
    seed = random.SystemRandom().getrandbits(32) if options.seed is None else options.seed
    print(f"seed {seed}, {options.count} logs", flush=True)
    disagreements, seen, clean = 0, {}, 0
    for number in range(options.count):
        rng = random.Random(seed * 1_000_003 + number)
        with tempfile.TemporaryDirectory() as place:
            writer = Writer(rng, rng.sample(FAULTS, rng.choice([0, 1, 1, 1, 2, 3])))
            writer.write(rng.choice([0, 5, 30, 30, 100, 400, 800]))
            disk = Disk(rng, writer, place)
            trust = disk.trust()
            if rng.random() < 0.7:
                disk.prune()
            for _ in range(rng.choice([0, 0, 1, 1, 2])):
                disk.damage()
            strict = rng.random() < 0.2
            mine, theirs, why, complaint = compare(options.program, place, trust, strict)
            clean += mine[0] == 0
            for name in {name for name, _ in mine[1]} or {f"exit {mine[0]}"}:
                seen[name] = seen.get(name, 0) + 1
            if mine != theirs:
                disagreements += 1
                if disagreements <= 10:
                    print(f"log {number}: verify.py {mine} {why or ''}\n"
                          f"  affiant-verify {theirs} {complaint}", flush=True)
                if options.keep:
                    shutil.copytree(place, os.path.join(options.keep, f"{seed}-{number}"))
    print(", ".join(f"{name} {count}" for name, count in sorted(seen.items())))
    missing = sorted(set(rules.BREAKS) - set(seen))
    print(f"findings never provoked: {', '.join(missing) or 'none'}")
    print(f"{options.count} logs, {clean} clean, {disagreements} disagreements")
    return 1 if disagreements else 0


if __name__ == "__main__":
    sys.exit(main())
