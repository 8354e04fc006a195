#!/usr/bin/env python3
"""Independent reader of Affiant's evidence format, version 1.

Written from docs/FORMAT.md with nothing but the Python standard library (3.11 or later), so that the
specification and not one program defines the format. It shares no code with affiant-verify.

    verify.py LOGDIR|FILE.evb [--trust FILE] [--strict] [--live-challenge HEX] [--json]
    verify.py --vectors DIR

Exit codes: 0 everything that the trust file requires is proved; 1 findings; 2 could not check, or nobody says
whose log it should be.

Everything it reads may come from an adversary. Nesting is bounded by the format and not by the input, each file
has a size limit, only regular files are opened, and whatever cannot be read becomes a finding.
"""

import hashlib
import json
import os
import re
import stat
import sys
import tomllib

from reader.basics import CannotCheck, Refused, decode_base64
from reader.blobs import BLOB_BYTES_MAX, blob_path
from reader.boot import REGISTERS
from reader.bundle import Archive, BundleAudit, parse_manifest, subtrees
from reader.kept import KEPT_BYTES_MAX, bundles_of
from reader.packed import SEGMENT_BYTES_MAX, blocks_of, unpack
from reader.profile import ENTRY_BYTES_MAX, U53_MAX, decode, decode_disclosure
from reader.rules import BREAKS, CLAIMS, Audit, Outcome, newer_version
from reader.signed import NOTE_BYTES_MAX, is_key_name, parse_checkpoint_text, parse_note, parse_vkey, signed_by
from reader.certificates import read_chain
from reader.tpm import check_name
from reader.values import Values
from reader.witnesses import Policy, stored_path

# ----------------------------------------------------------------------------------------------------------
# Files, tiles and the tree
# ----------------------------------------------------------------------------------------------------------

TILE_WIDTH = 256
BUNDLE_BYTES_MAX = TILE_WIDTH * (2 + ENTRY_BYTES_MAX)
TRUST_BYTES_MAX = 4 << 20
SIDECAR_BYTES_MAX = 64 << 20
REGISTER_VALUES_MAX = 4096
KEPT_BYTES_MAX = 256 << 20
EXPECTED_BYTES_MAX = 1 << 20
I64_MAX = 2**63 - 1  # of TOML
PEM_BYTES_MAX = 1 << 20
ROOTS_MAX = 1024
ENTRIES_BYTES_MAX = 4 << 20


def read_file(directory, name, limit, follow=False):
    """The bytes of a regular file; None when there is none. Links, pipes, devices and large files are refused."""
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)
    try:
        # Without O_NONBLOCK, opening a pipe would wait for its other end.
        opened = os.open(os.path.join(directory, name), flags)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise Refused(f"{name} cannot be opened: {error}") from error
    try:
        status = os.fstat(opened)
        if not stat.S_ISREG(status.st_mode):
            raise Refused(f"{name} is not a regular file")
        if status.st_size > limit:
            raise Refused(f"{name} has more than {limit} bytes")
        data = bytearray()
        while len(data) <= limit and (part := os.read(opened, limit + 1 - len(data))):
            data += part
    except OSError as error:
        raise Refused(f"{name} cannot be read: {error}") from error
    finally:
        os.close(opened)
    if len(data) > limit:
        raise Refused(f"{name} has more than {limit} bytes")
    return bytes(data)


def number_path(number):
    groups = [f"{number % 1000:03}"]
    while number >= 1000:
        number //= 1000
        groups.append(f"x{number % 1000:03}")
    return "/".join(reversed(groups))


def sidecar_path(number):
    return "sidecar/" + number_path(number)


def tile_path(level, tile, width):
    """`level` is a number, or `entries`."""
    partial = f".p/{width}" if width < TILE_WIDTH else ""
    return f"tile/{level}/" + number_path(tile) + partial


def split_bundle(data, width):
    entries, at = [], 0
    while at < len(data):
        size = int.from_bytes(data[at:at + 2], "big")
        if at + 2 + size > len(data):
            raise Refused(f"entry {len(entries)} of the bundle is cut off")
        entries.append(data[at + 2:at + 2 + size])
        at += 2 + size
        if len(entries) > width:
            break
    if len(entries) != width:
        raise Refused(f"the bundle does not hold {width} entries")
    return entries


def leaf_hash(entry):
    return hashlib.sha256(b"\x00" + entry).digest()


def node_hash(left, right):
    return hashlib.sha256(b"\x01" + left + right).digest()


class Tree:
    """RFC 6962 over a stream of leaf hashes: the root so far, and per level the tile that is being filled."""

    def __init__(self):
        self.size = self.size_before = 0
        self.peaks = []  # (height, hash) of complete subtrees, largest first
        self.tiles = []  # per tile level: the hashes of the tile being filled

    def append(self, leaf):
        """Adds a leaf; yields (level, number, hashes) of each tile that this fills."""
        self.edge(0, leaf)
        yield from self.append_subtree(0, leaf)

    def append_subtree(self, height, top):
        """Adds a complete subtree of up to 256 leaves. A tile of leaf hashes that are not all known is not whole."""
        self.size_before = self.size
        self.size += 1 << height
        if not self.tiles:
            self.tiles.append([])
        if height == 8:
            self.edge(1, top)
        while self.peaks and self.peaks[-1][0] == height:
            height, top = height + 1, node_hash(self.peaks.pop()[1], top)
            if height % 8 == 0:
                level = height // 8
                yield level - 1, (self.size >> height) - 1, self.tiles[level - 1]
                self.tiles[level - 1] = []
                self.edge(level, top)
        self.peaks.append((height, top))

    def edge(self, level, value):
        if level == len(self.tiles):
            self.tiles.append([])
        self.tiles[level].append(value)

    def partial_tiles(self):
        for level, hashes in enumerate(self.tiles):
            if hashes:
                yield level, (self.size >> 8 * level) // TILE_WIDTH, hashes

    def root(self):
        if not self.peaks:
            return hashlib.sha256(b"").digest()
        top = self.peaks[-1][1]
        for _, peak in reversed(self.peaks[:-1]):
            top = node_hash(peak, top)
        return top


# ----------------------------------------------------------------------------------------------------------
# Trust files
# ----------------------------------------------------------------------------------------------------------

class Trust:
    """A trust file; raises Refused for anything else."""

    KEYS = {"version": int, "origin": str, "log_key": str, "genesis": str, "first_epoch_key": str,
            "minimum_tier": str, "required": list}
    TPM_NAMES = ("ak_names", "live_activated_aks")
    ROOTS = ("site_roots", "independent_roots", "cloud_roots", "vendor_roots", "ek_roots")
    TPM_NUMBERS = {"counter_value": I64_MAX, "reset_count": 2**32 - 1, "largest_anchor_gap_seconds": I64_MAX}
    LIMITS = ("largest_gap_seconds", "largest_loss_events", "accepted_not_covered")

    def __init__(self, data):
        try:
            table = tomllib.loads(data.decode("utf-8"))
        # Deeply nested arrays exhaust the stack of the TOML reader, which is written recursively.
        except (ValueError, RecursionError) as error:
            raise Refused(f"not TOML: {error}") from error
        heads = table.pop("head", [])
        policy = table.pop("witness_policy", None)
        self.registers = self.register_policies(table.pop("pcr", []))
        self.limits = {key: table.pop(key, None) for key in self.LIMITS}
        for key, value in self.limits.items():
            fits = type(value) is list and all(type(item) is str for item in value) if key == "accepted_not_covered" else (
                type(value) is int and 0 <= value <= I64_MAX)
            if value is not None and not fits:
                raise Refused(f"`{key}` is of another type or out of range")
        if self.limits["accepted_not_covered"] is not None:
            self.limits["accepted_not_covered"] = {item.encode() for item in self.limits["accepted_not_covered"]}
        self.tpm(table)
        for key, kind in self.KEYS.items():
            # `type`, because True is an int for isinstance.
            if type(table.get(key)) is not kind:
                raise Refused(f"`{key}` is missing or of another type")
        if len(table) != len(self.KEYS) or table["version"] != 1:
            raise Refused("unknown keys, or a version that this reader does not know")
        self.origin = table["origin"]
        self.log_key = parse_vkey(table["log_key"])
        if self.log_key[0] != self.origin:
            raise Refused("the log key is not named as the origin")
        self.genesis = self.hash(table["genesis"])
        self.first_epoch_key = self.hash(table["first_epoch_key"])
        self.minimum_tier = table["minimum_tier"]
        self.required = table["required"]
        if self.minimum_tier not in ("T0", "T1", "T2", "T3"):
            raise Refused("`minimum_tier` is not a tier")
        if not all(isinstance(claim, str) and claim in CLAIMS for claim in self.required):
            raise Refused("`required` names a claim that does not exist")
        if policy is not None and type(policy) is not str:
            raise Refused("`witness_policy` is not a string")
        self.policy = None if policy is None else Policy(policy)
        if self.policy is not None and any(log != self.log_key for log in self.policy.logs):
            raise Refused("`witness_policy` names another log")
        self.heads = {}
        if type(heads) is not list:
            raise Refused("`head` is not an array of tables")
        for head in heads:
            if type(head) is not dict or set(head) != {"size", "root"} or type(head["size"]) is not int:
                raise Refused("a head is a size and a root")
            if not 0 <= head["size"] <= U53_MAX:
                raise Refused("the size of a head is out of range")
            root = self.hash(head["root"])
            if self.heads.setdefault(head["size"], root) != root:
                raise Refused("two roots for one size")

    def tpm(self, table):
        """What is known of the TPM."""
        self.attestation = known = {}
        for key in (*self.TPM_NAMES, *self.ROOTS):
            known[key] = table.pop(key, [])
            if type(known[key]) is not list or not all(type(item) is str for item in known[key]):
                raise Refused(f"`{key}` is not an array of strings")
        for key, most in self.TPM_NUMBERS.items():
            known[key] = table.pop(key, None)
            if known[key] is not None and not (type(known[key]) is int and 0 <= known[key] <= most):
                raise Refused(f"`{key}` is of another type or out of range")
        for key in self.TPM_NAMES:
            known[key] = [self.tpm_name(text) for text in known[key]]
        known["key_roots"] = [(kind, self.root(text)) for kind in ("site", "independent", "cloud", "vendor")
                              for text in known[kind + "_roots"]]
        known["endorsement_roots"] = [("endorsement", self.root(text)) for text in known["ek_roots"]]
        self.check_roots(known)
        name = table.pop("counter_name", None)
        known["counter_name"] = None if name is None else self.tpm_name(name)
        self.keys = frozenset(known["ak_names"] + known["live_activated_aks"])

    @staticmethod
    def root(text):
        """The one certificate in PEM that a text has. What stands outside blocks is a comment."""
        if len(text.encode()) > PEM_BYTES_MAX:
            raise Refused("a certificate in PEM that is too long")
        found, body = [], None
        for line in (line.rstrip() for line in text.split("\n")):
            if body is None and line == "-----BEGIN CERTIFICATE-----":
                body = ""
            elif body is None and line.startswith("-----"):
                raise Refused("a block in PEM that is no certificate")
            elif body is not None and line == "-----END CERTIFICATE-----":
                decoded = decode_base64(body.encode())
                found, body = [*found, decoded], None
            elif body is not None:
                body += line
        if body is not None or len(found) != 1 or found[0] is None:
            raise Refused("a root that is not one certificate in PEM")
        try:
            return read_chain(found)[0]
        except ValueError as error:
            raise Refused(f"a root that is no certificate: {error}") from error

    @staticmethod
    def check_roots(known):
        """A root is an authority's that may sign certificates, and is believed as one thing."""
        for roots in (known["key_roots"], known["endorsement_roots"]):
            classes = {}
            for kind, root in roots:
                if not root.authority or not root.may_sign():
                    raise Refused("a root that is no authority's")
                if classes.setdefault(repr(root.key), kind) != kind:
                    raise Refused("a root that is believed as two things")
            if len(roots) > ROOTS_MAX:
                raise Refused("too many roots")

    @staticmethod
    def tpm_name(text):
        if type(text) is not str or text.strip("0123456789abcdef") or len(text) % 2:
            raise Refused("not a name of a TPM's object")
        return check_name(bytes.fromhex(text))

    @staticmethod
    def register_policies(tables):
        """Register and permitted values, in the order of registers."""
        policies = {}
        if type(tables) is not list:
            raise Refused("`pcr` is not an array of tables")
        for table in tables:
            if type(table) is not dict or set(table) != {"index", "values"} or type(table["index"]) is not int:
                raise Refused("a `pcr` is an index and values")
            index, values = table["index"], table["values"]
            if not 0 <= index < REGISTERS or index in policies:
                raise Refused("a register that there is not, or twice")
            if type(values) is not list or not 1 <= len(values) <= REGISTER_VALUES_MAX:
                raise Refused("no permitted value of a register, or too many")
            if not all(type(value) is str and re.fullmatch("[0-9a-f]{64}", value) for value in values):
                raise Refused("a value of a register is not 64 hexadecimal digits")
            policies[index] = {bytes.fromhex(value) for value in values}
        return sorted(policies.items())

    @staticmethod
    def hash(encoded):
        decoded = decode_base64(encoded.encode("utf-8")) if isinstance(encoded, str) else None
        if decoded is None or len(decoded) != 32:
            raise Refused("not base64 of 32 bytes")
        return decoded


# ----------------------------------------------------------------------------------------------------------
# The whole log
# ----------------------------------------------------------------------------------------------------------

class Log:
    """The files of one log, and the walk over them: FORMAT.md section 13.1."""

    challenge = None  # what an anchor must carry

    def __init__(self, directory, trust, strict):
        self.directory, self.trust, self.strict = directory, trust, strict
        self.out = Outcome()
        self.tree, self.complete = Tree(), True
        self.genesis = None
        self.audit = None
        self.segment = (None, [])  # number and blocks of the packed segment that was looked into last
        self.cosigned = []  # (size, root, place of the witness in the policy), each with a cosignature that holds
        self.contained = []  # those of them that the log contains: (size, witness)
        self.kept_file = (None, [])  # number and bundles of the file of kept entries that was looked into last
        self.heads_alone = 0  # heads within withheld entries after which no other was compared and is equal
        self.unpacked = (None, None)  # number of the bundle that was unpacked last, its bytes and leaf hashes

    def read(self, name, limit):
        try:
            return read_file(self.directory, name, limit)
        except Refused as why:
            raise CannotCheck(str(why)) from why

    def verify(self):
        """The claims and what became of each; findings and notes are in `out`."""
        self.read_cosigned()
        data = self.read("checkpoint", NOTE_BYTES_MAX)
        try:
            if data is None:
                raise Refused("it has no file `checkpoint`")
            body, signatures = parse_note(data)
            origin, size, root = parse_checkpoint_text(body)
            if size > U53_MAX:
                raise Refused("the tree size is above 2^53 - 1")
        except Refused as why:
            if not self.has_genesis():
                raise CannotCheck(f"not a log: {why}") from why
            self.out.find("checkpoint_missing" if data is None else "checkpoint_malformed", str(why))
            return {claim: "failed" if claim in self.out.failed else "not proved" for claim in CLAIMS}
        if self.trust and self.trust.policy and self.trust.origin == origin:
            self.take_cosigned(None, size, root, body, signatures)
        self.audit = Audit(origin, self.strict, self.out, self.trust.keys if self.trust else ())
        self.audit.attested.challenge = self.challenge
        self.audit.values = Values(self.out.find)
        self.walk(size)
        self.audit.finish(size)
        if self.complete and self.tree.root() != root:
            self.out.find("root_mismatch", f"the {size} entries have another root hash than the checkpoint")
        self.signatures(origin, body, signatures)
        self.compare_with_trust(origin)
        return self.claims()

    def read_cosigned(self):
        """What trusted witnesses cosigned, as it is kept beside the log."""
        policy = self.trust.policy if self.trust else None
        for name in sorted({witness.name for witness in policy.witnesses} if policy else ()):
            data = self.read(stored_path(name), NOTE_BYTES_MAX)
            try:
                if data is not None:
                    body, signatures = parse_note(data)
                    origin, size, root = parse_checkpoint_text(body)
                    if origin != self.trust.origin or size > U53_MAX:
                        raise Refused("of another log, or too large")
                    self.take_cosigned(name, size, root, body, signatures)
            except Refused as why:
                self.out.notes.append(("cosignature_unusable", f"{stored_path(name)}: {why}"))

    def take_cosigned(self, only, size, root, body, signatures):
        for at, witness in enumerate(self.trust.policy.witnesses):
            if only not in (None, witness.name):
                continue
            try:
                if witness.cosigned(body, signatures) is not None:
                    self.cosigned.append((size, root, at))
            except Refused as why:
                self.out.find("cosignature_forged", f"{witness.name} at {size} entries: {why}")
            except NotImplementedError as why:
                self.out.notes.append(("cosignature_not_judged", f"{witness.name}: {why}"))

    def witnessed(self):
        """The size up to which a quorum of witnesses cosigned what the log contains, or None."""
        policy = self.trust.policy if self.trust else None
        if policy is None or policy.quorum is None:
            return None
        seen = set()
        for size, at in sorted(self.contained, reverse=True):
            seen.add(at)
            if size > 0 and policy.is_met(seen):
                return size
        return None

    def has_genesis(self):
        # What is wrong with a segment is not reported of a log without a checkpoint.
        out, self.out = self.out, Outcome()
        packed, kept = self.cold(0), self.kept(0)
        self.out = out
        for width in range(TILE_WIDTH, 0, -1):
            data = self.read(tile_path("entries", 0, width), BUNDLE_BYTES_MAX)
            if data is None and width == TILE_WIDTH and packed:
                data = packed[0]
            if data is None:
                continue
            try:
                if decode(split_bundle(data, width)[0])["kind"] == "genesis":
                    return True
            except Refused:
                continue
        try:
            return bool(kept) and isinstance(kept[0], bytes) and decode(kept[0])["kind"] == "genesis"
        except Refused:
            return False

    def kept(self, tile):
        """The items that a file of kept entries has for this bundle, or None."""
        number, place = divmod(tile, TILE_WIDTH)
        if self.kept_file[0] != number:
            self.kept_file = (number, [])
            path = "kept/" + number_path(number)
            data = self.read(path, KEPT_BYTES_MAX)
            try:
                self.kept_file = (number, bundles_of(data) if data is not None else [])
            except Refused as why:
                self.out.find("kept_malformed", f"{path}: {why}", number * TILE_WIDTH * TILE_WIDTH)
        return self.kept_file[1][place] if place < len(self.kept_file[1]) else None

    def stored(self, level, tile, width, limit):
        """A file of the directory and how many items it should hold: the full one where the partial is gone, and
        what a packed segment gives where both are."""
        for stored_width in sorted({width, TILE_WIDTH}):
            data = self.read(tile_path(level, tile, stored_width), limit)
            if data is not None:
                return data, stored_width
        unpacked = self.cold(tile) if level in (0, "entries") else None
        if unpacked is None:
            return None, width
        return unpacked[0] if level == "entries" else b"".join(unpacked[1]), TILE_WIDTH

    def cold(self, tile):
        """What a packed segment holds of this bundle: its bytes and leaf hashes, or None."""
        number, block = divmod(tile, TILE_WIDTH)
        if self.segment[0] != number:
            self.segment = (number, [])
            data = self.read("packed/" + number_path(number), SEGMENT_BYTES_MAX)
            try:
                self.segment = (number, blocks_of(data) if data is not None else [])
            except Refused as why:
                self.malformed(number, number * TILE_WIDTH, why)
        if self.unpacked[0] != tile:
            self.unpacked = (tile, None)
            try:
                if block < len(self.segment[1]):
                    self.unpacked = (tile, unpack(self.segment[1][block]))
            except Refused as why:
                self.malformed(number, tile, why)
        return self.unpacked[1]

    def malformed(self, segment, tile, why):
        self.out.find("segment_malformed", f"packed/{number_path(segment)}: {why}", tile * TILE_WIDTH)

    def tile(self, level, tile, width, stored=None):
        data, stored_width = stored or self.stored(level, tile, width, TILE_WIDTH * 32)
        path = tile_path(level, tile, width)
        if data is None:
            self.out.find("tile_missing", f"{path} is missing")
        elif len(data) != stored_width * 32:
            self.out.find("tile_differs", f"{path} has another length")
        else:
            return [data[at:at + 32] for at in range(0, width * 32, 32)]
        return None

    def bundle(self, number, width):
        """The entries, or None; and the items that are kept of them, if they were pruned."""
        data, stored_width = self.stored("entries", number, width, BUNDLE_BYTES_MAX)
        kept = self.kept(number) if data is None and width == TILE_WIDTH else None
        if kept is not None:
            return None, kept
        path = tile_path("entries", number, width)
        try:
            if data is not None:
                return split_bundle(data, stored_width)[:width], None
            self.out.find("bundle_missing", f"{path} is missing", number * TILE_WIDTH)
        except Refused as why:
            self.out.find("bundle_malformed", f"{path}: {why}", number * TILE_WIDTH)
        return None, None

    def walk(self, size):
        previous = bytes(32)
        for number in range((size + TILE_WIDTH - 1) // TILE_WIDTH):
            first = number * TILE_WIDTH
            width = min(TILE_WIDTH, size - first)
            # The tile is read first: a writer that prunes removes the bundle before it. Of a pruned bundle it is not needed.
            stored = self.stored(0, number, width, TILE_WIDTH * 32)
            entries, kept = self.bundle(number, width)
            if kept is not None:
                previous = self.pruned_bundle(first, kept, previous)
                continue
            hashes = self.tile(0, number, width, stored)
            if entries is None:
                self.audit.sighted = False
                previous = None
            if hashes is None and entries is None:
                self.complete = False
                break
            for at in range(width):
                previous = self.entry(first + at, entries and entries[at], hashes and hashes[at], previous)
        self.compare_head(size)
        heads = [*(self.trust.heads if self.trust else ()), *(cosigned[0] for cosigned in self.cosigned)]
        late = [remembered for remembered in heads if remembered > size]
        if late:
            self.out.find("log_truncated", f"{size} entries, the trust file or a witness remembers {max(late)}")
        if self.complete:
            for level, tile, hashes in self.tree.partial_tiles():
                self.compare_tile(level, tile, hashes)
            self.audit.attested.settle(lambda at: self.root_at(at, size))
            self.sidecars(size)
            blobs = self.audit.blobs
            for digest in sorted(blobs.awaited):
                content = self.read(blob_path(digest), BLOB_BYTES_MAX)
                if blobs.judge(digest, content):
                    self.audit.attested.blob(digest, content)
            blobs.finish()
            self.judge_host(lambda digest: self.read(blob_path(digest), BLOB_BYTES_MAX))

    def judge_host(self, read):
        """What was booted; `read` gives the content that stands under a digest, or None."""
        def content(digest, size):
            data = read(digest)
            fits = data is not None and len(data) == size and hashlib.sha256(data).hexdigest() == digest
            return data if fits else None
        self.audit.boots.judge(self.trust.registers if self.trust else [], content)

    def pruned_bundle(self, index, items, previous):
        for item in items:
            if isinstance(item, bytes):
                previous = self.entry(index, item, None, previous)
                index += 1
                continue
            height, value = item
            self.compare_head(None)
            self.audit.withheld(index, 1 << height)
            previous = value if height == 0 else None
            if index == 0:
                self.genesis = previous
            for level, tile, hashes in self.tree.append_subtree(height, value):
                self.compare_tile(level, tile, hashes)
            index += 1 << height
            self.hidden_heads(index)
        return previous

    def hidden_heads(self, past):
        """Heads that the subtree just added passed over."""
        before = self.tree.size_before
        hidden = [size for size in (self.trust.heads if self.trust else ()) if before < size < past]
        self.heads_alone += len(hidden)
        if hidden:
            self.out.note("head_pruned", f"{len(hidden)} heads of the trust file are within what is pruned")
        for size, _, _ in self.cosigned:
            if before < size < past:
                self.out.note("cosignature_pruned", f"a cosigned size, {size}, is within what is pruned")

    def root_at(self, at, size):
        """The root hash of the first `at` entries, from the tiles; None where they do not say."""
        if at > size:
            return None
        peaks, first = [], 0
        for height in subtrees(0, at):
            level, within = divmod(height, 8)
            tile, place = divmod(first >> 8 * level, TILE_WIDTH)
            width = min(TILE_WIDTH, (size >> 8 * level) - tile * TILE_WIDTH)
            data, stored_width = self.stored(level, tile, width, TILE_WIDTH * 32)
            if data is None or len(data) != stored_width * 32:
                return None
            hashes = [data[32 * n:32 * n + 32] for n in range(place, place + (1 << within))]
            while len(hashes) > 1:
                hashes = [node_hash(left, right) for left, right in zip(hashes[::2], hashes[1::2])]
            peaks.append(hashes[0])
            first += 1 << height
        root = peaks.pop() if peaks else hashlib.sha256(b"").digest()
        while peaks:
            root = node_hash(peaks.pop(), root)
        return root

    def sidecars(self, size):
        """The texts behind committed values, judged last: what was erased is told by later entries."""
        values = self.audit.values
        for number in sorted({index // TILE_WIDTH for index, _, _ in values.awaited}):
            path = sidecar_path(number)
            data = self.read(path, SIDECAR_BYTES_MAX) or b""
            for line in data.split(b"\n")[:-1]:
                try:
                    index, field, _, _ = decode_disclosure(line)
                except Refused as why:
                    self.out.find("sidecar_malformed", f"{path}: {why}")
                    continue
                if index >= size:
                    break
                if index // TILE_WIDTH == number:
                    values.line(line)
                else:
                    self.out.find("commitment_wrong", f"{path} speaks of entry {index} ({field!r})", index)
        values.finish()

    def entry(self, index, data, stored, previous):
        self.compare_head(None)
        leaf = stored
        if data is not None:
            own = leaf_hash(data)
            if stored is None:
                leaf = own
            elif stored != own:
                self.out.find("entry_altered", f"entry {index} does not have the hash that was stored for it", index)
            version = newer_version(data)
            if version is not None and stored in (None, own) and not self.out.total:
                raise CannotCheck(f"entry {index} is of version {version} of the format: take a newer verifier")
            self.audit.entry(index, data, leaf, previous)
        if index == 0:
            self.genesis = leaf
        for level, tile, hashes in self.tree.append(leaf):
            self.compare_tile(level, tile, hashes)
        return leaf

    def compare_head(self, end):
        """Compares the head that the trust file remembers at the present size; `end` is the checkpoint's size."""
        for size, root, at in self.cosigned if self.complete else ():
            if size == self.tree.size:
                if root == self.tree.root():
                    self.contained.append((size, at))
                else:
                    name = self.trust.policy.witnesses[at].name
                    self.out.find("split_view", f"{name} cosigned another history of {size} entries")
        root = self.trust.heads.get(self.tree.size) if self.trust and self.complete else None
        if root is not None and root == self.tree.root():
            self.heads_alone = 0
        elif root is not None:
            name = "equivocation" if self.tree.size == end else "head_mismatch"
            self.out.find(name, f"the trust file remembers another root hash at size {self.tree.size}")

    def compare_tile(self, level, tile, expected):
        if level > 0:
            stored = self.tile(level, tile, len(expected))
            if stored is not None and stored != expected:
                path = tile_path(level, tile, len(expected))
                self.out.find("tile_differs", f"{path} does not hold the hashes that the entries give")

    def signatures(self, origin, body, signatures):
        log_key = self.trust.log_key if self.trust else self.audit.log_key or (None, None)
        epoch_key = (origin + "/epoch", self.audit.epoch and self.audit.epoch[1])
        if not self.audit.sighted:
            # The epoch that signed may be among what could not be read.
            epoch_key = (None, None)
        elif epoch_key[1] is None or not is_key_name(epoch_key[0]):
            self.out.find("epoch_missing", "the log introduces no epoch key")
            epoch_key = (None, None)
        for name, key in (log_key, epoch_key):
            if key is None:
                continue
            holds = signed_by(body, signatures, name, key)
            if not holds:
                finding = "checkpoint_forged" if holds is None else "checkpoint_unsigned"
                self.out.find(finding, f"the checkpoint is not signed by the key of {name}")

    def compare_with_trust(self, origin):
        trust, audit = self.trust, self.audit
        audit.attested.challenged(self.tier(), trust is not None)
        if trust is None:
            return
        if trust.origin != origin:
            self.out.find("origin_untrusted", f"this is the log {origin}, the trust file is for {trust.origin}")
        if audit.log_key is not None and audit.log_key != trust.log_key:
            self.out.find("log_key_untrusted", "the log names another log key than the trust file")
        if self.genesis not in (None, trust.genesis):
            self.out.find("genesis_untrusted", "the log begins otherwise than the trust file says")
        if audit.first_epoch_key not in (None, trust.first_epoch_key):
            self.out.find("first_epoch_untrusted", "the first epoch has another key than the trust file names")
        tier = self.tier()
        if tier < trust.minimum_tier:
            self.out.find("tier_too_low", f"tier {tier}, the trust file requires {trust.minimum_tier}")
        if audit.sighted:
            audit.attested.compare(trust.attestation)
            audit.compare_limits(trust.limits)

    def tier(self):
        """Where the log key lives, as far as the trust file believes."""
        audit = self.audit
        beginning = {"origin": audit.origin, "log_key": audit.log_key and audit.log_key[1], "genesis": self.genesis,
                     "first_epoch_key": audit.first_epoch_key}
        return audit.attested.tier(self.trust.attestation if self.trust else None, beginning)

    def unproved(self):
        """Claims that are not proved, whatever was found."""
        unproved = {"time_bounds"}
        proves = self.audit.boots.proves(self.trust.registers if self.trust else [])
        tier = self.tier()
        believed = self.audit.attested.is_believed() or tier > "T0"
        if not (self.audit.sighted and believed and proves):
            unproved.add("host_state")
        if self.audit.claimed_tier > tier:
            self.out.note("tier_claimed", f"the log claims tier {self.audit.claimed_tier}: judged as {tier}")
        if self.witnessed() is None:
            unproved.add("non_equivocation")
        if self.trust is None:
            unproved |= {"authenticity", "continuity"}
        if self.heads_alone:
            unproved.add("continuity")
        if not self.audit.sighted:
            unproved |= {"coverage", "sessions"}
        if self.audit.overflowed or self.audit.runs == 0:
            unproved.add("coverage")
        return unproved

    def required(self):
        return set(self.trust.required)

    def claims(self):
        unproved = self.unproved()
        if "integrity" in self.out.failed:
            unproved |= set(CLAIMS)
        claims = {}
        for claim in CLAIMS:
            claims[claim] = ("failed" if claim in self.out.failed else
                             "not proved" if claim in unproved else "proved")
        for claim in CLAIMS if self.trust and not self.out.total else ():
            if claim in self.required() and claims[claim] == "not proved":
                self.out.find("claim_not_proved", f"the trust file requires {claim}, which is not proved")
        return claims


class Bundle(Log):
    """An evidence bundle, and the walk over it: FORMAT.md section 17."""

    def __init__(self, stream, trust, strict):
        super().__init__(None, trust, strict)
        self.archive = Archive(stream)
        self.heads_left = 0

    def verify(self):
        try:
            self.archive.open(0)
        except Refused as why:
            raise CannotCheck(f"not an evidence bundle: {why}") from why
        try:
            return self.read_through()
        except Refused as why:
            self.out.find("evb_malformed", str(why))
            self.audit = None
        except OSError as error:
            raise CannotCheck(f"cannot read the bundle: {error}") from error
        return {claim: "failed" if claim in self.out.failed else "not proved" for claim in CLAIMS}

    def read_through(self):
        data = self.archive.exactly(self.archive.size)
        self.archive.fill()
        sessions, heads = parse_manifest(data)
        note = self.archive.member(1)
        try:
            body, signatures = parse_note(note)
            origin, size, root = parse_checkpoint_text(body)
            if size > U53_MAX:
                raise Refused("the tree size is above 2^53 - 1")
        except Refused as why:
            self.out.find("checkpoint_malformed", str(why))
            return {claim: "failed" if claim in self.out.failed else "not proved" for claim in CLAIMS}
        if heads and heads[-1] >= size:
            raise Refused("a head is not below the checkpoint")
        self.audit = BundleAudit(origin, self.strict, self.out, sessions, self.trust.keys if self.trust else ())
        self.audit.attested.challenge = self.challenge
        roots = self.walk_bundle(size, heads)
        self.audit.finish(size)
        if roots[size] != root:
            self.out.find("evb_proof_wrong", "the entries and hashes have another root hash than the checkpoint")
        self.audit.attested.settle(roots.get)
        for head, remembered in (self.trust.heads if self.trust else {}).items():
            if head not in roots:
                self.heads_left += 1
            elif roots[head] != remembered:
                name = "equivocation" if head == size else "head_mismatch"
                self.out.find(name, f"the trust file remembers another root hash at size {head}")
        if self.trust and self.trust.policy and self.trust.origin == origin:
            self.take_cosigned(None, size, root, body, signatures)
            self.contained = [(size, at) for _, _, at in self.cosigned if roots[size] == root]
        self.signatures(origin, body, signatures)
        self.compare_with_trust(origin)
        return self.claims()

    def walk_bundle(self, size, heads):
        """The root hashes at every size that is shown."""
        hashes = self.archive.member(2)
        if len(hashes) % 32:
            raise Refused("not a whole number of hashes")
        given = (hashes[at:at + 32] for at in range(0, len(hashes), 32))
        peaks, at, roots = [], 0, {0: hashlib.sha256(b"").digest()}
        stops = sorted({*heads, size})

        def push(height, value):
            nonlocal at
            at += 1 << height
            while peaks and peaks[-1][0] == height:
                height, value = height + 1, node_hash(peaks.pop()[1], value)
            peaks.append((height, value))
            if at == stops[0]:
                root = value = peaks[-1][1]
                for _, peak in reversed(peaks[:-1]):
                    root = node_hash(peak, root)
                roots[stops.pop(0)] = root

        def withheld(past):
            while at < past:
                for height in subtrees(at, min(past, stops[0])):
                    value = next(given, None)
                    if value is None:
                        raise Refused("too few hashes")
                    push(height, value)

        values = Values(self.out.find)
        previous, count = (-1, bytes(32)), 0
        for line in self.archive.entries():
            entry = decode(line)
            values.entry(entry)
            self.audit.blobs.entry(entry)
            index = entry["i"]
            if not at <= index < size:
                raise Refused(f"entry {index} stands where it cannot")
            if count == 0 and index != 0:
                self.out.find("genesis_missing", "entry 0 is not in the bundle")
            withheld(index)
            leaf = leaf_hash(line)
            if index == 0:
                self.genesis = leaf
            self.audit.disclosed(entry, leaf, previous[1] if previous[0] + 1 == index else None)
            push(0, leaf)
            previous, count = (index, leaf), count + 1
        withheld(size)
        if next(given, None) is not None:
            raise Refused("too many hashes")
        for line in self.archive.disclosures():
            values.line(line)
        values.finish()
        blobs, wanted, kept = self.audit.blobs, self.audit.boots.contents(), {}
        for digest, content in self.archive.blobs():
            if digest not in blobs.awaited and blobs.beyond is None:
                raise Refused(f"no entry refers to {blob_path(digest)}")
            if digest in blobs.awaited and blobs.judge(digest, content):
                self.audit.attested.blob(digest, content)
            if digest in wanted:
                kept[digest] = content
            if sum(map(len, kept.values())) > KEPT_BYTES_MAX:
                raise CannotCheck("the bundle has more contents of measured logs than this reader keeps")
        blobs.finish()
        self.judge_host(kept.get)
        if count == 0:
            self.out.find("genesis_missing", "the bundle holds no entry")
        return roots

    def unproved(self):
        unproved = super().unproved() | {"coverage"}
        if self.heads_left:
            unproved.add("continuity")
        if not self.audit.proves_sessions():
            unproved.add("sessions")
        return unproved

    def required(self):
        return super().required() - {"coverage"}


def check(place, trust_path, strict, challenge=None):
    """(exit code, claims, outcome or None, why it could not be checked or None)"""
    outcome = None
    try:
        trust = None
        if trust_path is not None:
            data = read_file("", trust_path, TRUST_BYTES_MAX, follow=True)
            if data is None:
                raise CannotCheck("there is no trust file")
            trust = Trust(data)
        if os.path.isfile(place):
            with open(place, "rb") as stream:
                log = Bundle(stream, trust, strict)
                log.challenge = challenge
                claims = log.verify()
        else:
            log = Log(place, trust, strict)
            log.challenge = challenge
            claims = log.verify()
        outcome = log.out
        outcome.windows = log.audit.windows if log.audit else []
    except Refused as why:
        return 2, {}, None, f"trust file: {why}"
    except (CannotCheck, OSError) as why:
        return 2, {}, None, str(why)
    code = 1 if outcome.total else (0 if trust is not None else 2)
    return code, claims, outcome, None


# ----------------------------------------------------------------------------------------------------------
# Command line
# ----------------------------------------------------------------------------------------------------------

VERDICTS = {0: "every claim that the trust file requires is proved, its tier among them",
            1: "findings",
            2: "self-consistent, signer not established: no trust file"}


def show(result, as_json):
    code, claims, outcome, why = result
    if as_json:
        findings = [{"name": name, "index": index, "text": text}
                    for name, index, text in outcome.findings] if outcome else []
        notes = [{"name": name, "text": text} for name, text in outcome.notes] if outcome else []
        print(json.dumps({"exit": code, "error": why, "claims": claims, "findings": findings, "notes": notes,
                          "windows": outcome.windows if outcome else [],
                          "findings_total": outcome.total if outcome else 0}, indent=2))
        return
    if why is not None:
        print(f"could not check: {why}")
        return
    for claim, became in claims.items():
        print(f"{claim}: {became}")
    for name, _, text in outcome.findings:
        print(f"finding {name}: {text}")
    for name, text in outcome.notes:
        print(f"note {name}: {text}")
    for kind, first, last in outcome.windows:
        print(f"window {kind}: from entry {first} to {last}")
    print(VERDICTS[code])


def run_vectors(directory):
    """Each directory with an `expected.json` holds `log/` or `bundle.evb`, perhaps `trust.toml`, and what must come out."""
    passed = failed = 0
    try:
        names = sorted(os.listdir(directory))
    except OSError as error:
        print(f"cannot read {directory}: {error}", file=sys.stderr)
        return 2
    for name in names:
        place = os.path.join(directory, name)
        if not os.path.isdir(place):
            continue
        wrong = run_vector(place)
        passed, failed = (passed, failed + 1) if wrong else (passed + 1, failed)
        if wrong:
            print(f"{name}: {wrong}")
    for file in ("entries.jsonl", "entries_added.jsonl"):
        for number, line in enumerate(read_lines(directory, file), 1):
            try:
                decode(line)
                passed += 1
            except Refused as error:
                failed += 1
                print(f"{file} line {number}: {error}")
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


def read_lines(directory, name):
    """Lines without their line feeds; none if there is no such file."""
    data = read_file(directory, name, ENTRIES_BYTES_MAX)
    return (data or b"").splitlines()


def run_vector(place):
    """What is wrong with the verdict on one vector, or None."""
    try:
        expected = json.loads(read_file(place, "expected.json", EXPECTED_BYTES_MAX) or b"")
        wanted = list(zip(expected["findings"], expected["indexes"], strict=True))
        code, strict, windows = expected["exit"], expected["strict"], expected["windows"]
        challenge = bytes.fromhex(expected["challenge"]) if "challenge" in expected else None
    except (Refused, ValueError, TypeError, KeyError, RecursionError) as error:
        return f"no usable expected.json: {error}"
    trust_path = os.path.join(place, "trust.toml")
    bundle = os.path.join(place, "bundle.evb")
    held = bundle if os.path.lexists(bundle) else os.path.join(place, "log")
    result = check(held, trust_path if os.path.lexists(trust_path) else None, strict, challenge)
    seen = [(name, index) for name, index, _ in result[2].findings] if result[2] else []
    # Readers may find things in another order, but not other things.
    seen_windows = result[2].windows if result[2] else []
    if seen_windows != windows:
        return f"windows {seen_windows}, expected {windows}"
    if result[0] == code and sorted(seen, key=repr) == sorted(wanted, key=repr):
        return None
    return f"exit {result[0]} {seen}, expected {code} {wanted} {result[3] or ''}"


def main(arguments):
    # Names and paths may hold anything; printing them must not fail.
    sys.stdout.reconfigure(errors="backslashreplace")
    sys.stderr.reconfigure(errors="backslashreplace")
    trust_path, strict, as_json, vectors, places, challenge = None, False, False, None, [], None
    rest = iter(arguments)
    for argument in rest:
        if argument == "--trust":
            trust_path = next(rest, None)
            if trust_path is None:
                places = []
                break
        elif argument == "--vectors":
            vectors = next(rest, None)
        elif argument == "--strict":
            strict = True
        elif argument == "--live-challenge":
            text = next(rest, "")
            challenge = bytes.fromhex(text) if re.fullmatch("([0-9a-fA-F]{2})*", text, re.ASCII) else b""
            if not 16 <= len(challenge) <= 32:
                print("a challenge has 16 to 32 bytes, written as hexadecimal digits", file=sys.stderr)
                return 2
        elif argument == "--json":
            as_json = True
        else:
            places.append(argument)
    if vectors is not None and not places:
        return run_vectors(vectors)
    if len(places) != 1 or places[0].startswith("-"):
        print("usage: verify.py LOGDIR|FILE.evb [--trust FILE] [--strict] [--live-challenge HEX] [--json] | verify.py --vectors DIR", file=sys.stderr)
        return 2
    result = check(places[0], trust_path, strict, challenge)
    show(result, as_json)
    return result[0]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
