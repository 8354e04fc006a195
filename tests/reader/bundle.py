"""Evidence bundles: docs/FORMAT.md, section 17.

One pass over an open file. What a bundle may hold is bounded by the sizes in its headers, which are limited before
anything is read.
"""

import json

from reader.basics import Refused
from reader.blobs import BLOB_BYTES_MAX, blob_digest, blob_path
from reader.profile import ENTRY_BYTES_MAX, KINDS, U53_MAX, commitments
from reader.rules import Audit
from reader.signed import NOTE_BYTES_MAX

BLOCK = 512
MEMBERS = (("manifest.json", 2 << 20), ("checkpoint", NOTE_BYTES_MAX), ("hashes", 128 << 20), ("entries", 8**11 - 1),
           ("sidecar", 8**11 - 1))
SESSIONS_MAX, HEADS_MAX = 1024, 65_536
DESCRIBED_MAX = 1_000_000
DISCLOSURE_BYTES_MAX = 4 << 20



def header(name, size):
    """A `ustar` header of which only the name and the size are not fixed."""
    fields = (name.encode().ljust(100, b"\0"), b"0000600\0", b"0000000\0", b"0000000\0", b"%011o\0" % size,
              b"00000000000\0", b" " * 8, b"0", bytes(100), b"ustar\00000", bytes(64), b"0000000\0" * 2, bytes(167))
    block = b"".join(fields)
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


class Archive:
    """The members of a bundle, which must come in their order and fill the file."""

    def __init__(self, stream):
        self.stream = stream
        self.left = self.size = 0
        self.next = None  # the block behind the last line

    def exactly(self, count):
        data = self.stream.read(count)
        if len(data) != count:
            raise Refused("the file ends too early")
        return data

    def open(self, number):
        """The size of the next member, which must be this one."""
        self.stated(number, self.exactly(BLOCK))

    def stated(self, number, block):
        self.measured(block, *MEMBERS[number])

    def measured(self, block, name, limit):
        digits = block[124:135]
        if not all(0x30 <= digit <= 0x37 for digit in digits) or header(name, int(digits, 8)) != block:
            raise Refused(f"the header of {name} is not the one permitted")
        self.size = self.left = int(digits, 8)
        if self.size > limit:
            raise Refused(f"{name} has {self.size} bytes, at most {limit} are read")

    def member(self, number):
        self.open(number)
        data = self.exactly(self.size)
        self.fill()
        return data

    def fill(self):
        if any(self.exactly(-self.size % BLOCK)):
            raise Refused("what fills a last block is not zero")

    def entries(self):
        self.open(3)
        yield from self.lines(ENTRY_BYTES_MAX)

    def disclosures(self):
        """The lines of the member that may be absent."""
        self.next = self.exactly(BLOCK)
        if self.next.startswith(b"sidecar\0"):
            self.stated(4, self.next)
            if not self.size:
                raise Refused("an empty sidecar must not be there")
            yield from self.lines(DISCLOSURE_BYTES_MAX)
            self.next = self.exactly(BLOCK)

    def blobs(self):
        """Digest and content of the members that may be absent, and the end."""
        before = ""
        while any(self.next):
            digest = blob_digest(self.next[:100].split(b"\0")[0])
            if digest is None or digest <= before:
                raise Refused("neither the end nor a blob behind the one before")
            self.measured(self.next, blob_path(digest), BLOB_BYTES_MAX)
            content = self.exactly(self.size)
            self.fill()
            yield digest, content
            before, self.next = digest, self.exactly(BLOCK)
        if any(self.exactly(BLOCK)) or self.stream.read(1):
            raise Refused("the end is not two blocks of zeros and the end of the file")

    def lines(self, limit):
        while self.left:
            line = self.stream.readline(min(self.left, limit + 1))
            self.left -= len(line)
            if not line.endswith(b"\n"):
                raise Refused("a line is too long, or cut off")
            yield line[:-1]
        self.fill()


def parse_manifest(data):
    """(sessions, heads)"""
    try:
        table = json.loads(data)
        sessions, heads = table["sessions"], table["heads"]
        numbers = [table["version"], *sessions, *heads]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise Refused(f"not a manifest: {error}") from error
    if any(type(number) is not int or not 0 <= number <= U53_MAX for number in numbers):
        raise Refused("a manifest has numbers")
    made = {"version": 1, "sessions": sessions, "heads": heads}
    if json.dumps(made, separators=(",", ":")).encode() != data:
        raise Refused("the manifest is not in the one permitted form")
    for listed, limit in ((sessions, SESSIONS_MAX), (heads, HEADS_MAX)):
        if len(listed) > limit or any(a >= b for a, b in zip(listed, listed[1:])):
            raise Refused("sessions or heads are too many or do not ascend")
    if not sessions or heads[:1] == [0]:
        raise Refused("no session, or a head of size 0")
    return sessions, heads


def subtrees(first, past):
    """The heights of the complete subtrees that the leaves first..past divide into."""
    while first < past:
        height = (past - first).bit_length() - 1
        if first:
            height = min(height, (first & -first).bit_length() - 1)
        yield height
        first += 1 << height


class BundleAudit(Audit):
    """The rules of section 17.5 on top of those of sections 13.2 and 13.3, as far as a bundle shows them."""

    PARTIAL = True

    def __init__(self, origin, strict, out, sessions, trusted=()):
        super().__init__(origin, strict, out, trusted)
        self.boots.is_part = True
        self.named, self.begun, self.ended = frozenset(sessions), set(), set()
        self.omitted = set()  # sessions of which entries were left out
        self.phase = "before"
        self.last_control = None
        self.from_genesis, self.whole = True, True
        self.since = None
        self.early, self.early_policies = [], []
        self.committed = set()  # disclosed entries with committed values
        self.described, self.unused, self.unused_processes = set(), set(), {}
        self.closing_capture = self.unsettled = None

    def disclosed(self, entry, leaf, previous):
        index, kind, body = entry["i"], entry["kind"], entry["body"]
        if previous is not None and entry["prev"] != previous:
            self.find("previous_mismatch", f"entry {index} does not follow the entry before it", index)
        if kind == "genesis":
            self.genesis(index, body)
        elif kind == "epoch":
            self.epoch_entry(index, index, body)
        session = index if kind == "issued" else entry.get("s")
        session = session if session in self.named else None
        if not self.belongs(entry, session):
            self.find("evb_entry_foreign", f"entry {index} does not belong in the bundle", index)
            return
        if commitments(entry):
            self.committed.add(index)
        begun = session is None or session >= index or session in self.begun
        if session is not None:
            self.of_session(entry, session)
        if begun and (session is not None or "s" not in entry):
            self.session_chain(index, entry, leaf)
        self.kernel_number(index, entry)
        if kind in ("erased", "secret") and body["of"] >= index:
            self.find("reference_wrong", f"entry {index} refers to entry {body['of']}, which is not earlier", index)
        self.attest(index, entry)
        handler = getattr(self, "on_" + kind, None)
        if handler is not None:
            handler(index, entry)

    def belongs(self, entry, session):
        index, kind = entry["i"], entry["kind"]
        if KINDS[kind][0]:
            return self.control(entry)
        if "c" in entry:
            self.find("control_number_wrong", f"entry {index} has a control number", index)
        if session is not None:
            return True
        if "s" in entry:
            return False
        if kind == "workload":
            return self.describes(index)
        if kind == "process" and "p" in entry:
            before = self.unused_processes.get(entry["p"])
            if before is not None:
                self.find("evb_entry_foreign", f"entry {before} is a process that nothing names", before)
            self.unused_processes[entry["p"]] = index
            return len(self.unused_processes) <= DESCRIBED_MAX
        return False

    def describes(self, index):
        self.described.add(index)
        self.unused.add(index)
        return len(self.described) <= DESCRIBED_MAX

    def control(self, entry):
        """Whether an entry of the control chain belongs."""
        index, kind, seen = entry["i"], entry["kind"], entry.get("c")
        following = 0 if self.last_control is None else self.last_control + 1
        if seen is None or seen < following:
            self.find("control_number_wrong", f"entry {index} has control number {seen}, not {following}", index)
            return True
        self.last_control = seen
        if seen != following:
            self.from_genesis = False
        always = kind in ("genesis", "epoch", "attestation_key") or (kind == "erased" and entry["body"]["of"] in self.committed)
        if self.phase == "after":
            return always
        if self.phase == "before" and kind != "armed":
            if always:
                return True
            if kind == "policy":
                self.early_policies.append(index)
                return self.describes(index)
            self.early.append(index)
            return self.from_genesis
        if self.phase == "before":
            for before in self.early:
                self.find("evb_entry_foreign", f"entry {before} stands before the window", before)
            self.phase, self.since = "in", index
        elif kind == "armed" and not self.begun:
            self.find("evb_entry_foreign", f"entry {self.since} is an `armed` before the window", self.since)
            self.since = index
        elif seen != following:
            self.whole = False
            self.find("evb_control_omitted", f"entry {index} has control number {seen}, not {following}", index)
        if kind == "policy":
            self.described.add(index)
        if self.closes(entry):
            self.phase = "after"
        return True

    def closes(self, entry):
        kind, body = entry["kind"], entry["body"]
        ended = self.ended == self.named
        if kind == "armed":
            before, self.closing_capture = self.closing_capture, body["capture_id"]
            return ended and before not in (None, body["capture_id"])
        if not ended or kind not in ("heartbeat", "disarmed"):
            return False
        if kind == "disarmed" and body["cause"] != "upgrade":
            return True
        if self.unsettled is None:
            self.unsettled = {(cpu, number_class): upto for cpu, number_class, upto, _, _ in body["counters"]}
        for cpu, number_class, _, _, settled in body["counters"]:
            if settled >= self.unsettled.get((cpu, number_class), settled + 1):
                del self.unsettled[cpu, number_class]
        return not self.unsettled

    def of_session(self, entry, session):
        index, kind, body = entry["i"], entry["kind"], entry["body"]
        self.unused_processes.pop(entry.get("p"), None)
        for to in (entry.get("w"), entry.get("verdict", {}).get("set")):
            if to is None:
                continue
            self.unused.discard(to)
            if to not in self.described and len(self.described) <= DESCRIBED_MAX:
                self.described.add(to)
                self.find("evb_entry_omitted", f"entry {to}, which entry {index} refers to, is left out", to)
        if kind == "issued":
            self.unused_processes.pop(body.get("by", {}).get("process"), None)
            self.begun.add(session)
            if self.phase == "before":
                if not self.from_genesis or self.last_control is None:
                    self.whole = False
                    self.find("evb_control_omitted", f"entry {index} has no `armed` before it", index)
                self.early = []
                self.unused.difference_update(self.early_policies)
                self.phase = "in"
        elif kind == "revoked":
            self.ended.add(session)

    # What a part of a log shows otherwise than the whole.

    def parent_of(self, index, body):
        """A bundle is silent about the other sessions."""

    def number_differs(self, index, named, seen, expected):
        if seen is not None and seen > expected:
            self.omitted.add(named)
            self.find("evb_entry_omitted", f"entry {index} has number {seen}, not {expected}: some are left out", index)
        else:
            super().number_differs(index, named, seen, expected)

    def revoked(self, index, named, session, body):
        if named not in self.omitted:
            super().revoked(index, named, session, body)
            return
        if body["id"] != session.ident:
            self.find("revoked_wrong", f"entry {index} ends session {named} under another id", index)
        session.ended = True

    def stated_session(self, index, named, last, running):
        session = self.sessions.get(named)
        if session is None or named in self.omitted:
            return
        if last + 1 > session.next:
            self.omitted.add(named)
            session.next = last + 1
            self.find("evb_entry_omitted", f"entry {index} states {last} of session {named}: some are left out", index)
        else:
            super().stated_session(index, named, last, running)

    def account(self, index, key, first, last):
        """The numbers of other workloads are withheld, so a hole says nothing."""

    def holes(self, index, key, counter, limit):
        """As above."""

    def window(self, kind, since, until, length):
        """What was before the first run that a bundle shows, it does not show."""
        if kind != "before_first_run":
            super().window(kind, since, until, length)

    def on_workload(self, _, entry):
        """Referred to by `of_session`."""

    on_policy = on_unknown = on_identified = on_hold = on_workload

    def finish(self, size):
        for session in self.named - self.begun:
            self.find("evb_entry_omitted", f"entry {session}, which issued a session, is left out", session)
        self.attested.close(self.listed)
        for index in [*self.unused, *self.unused_processes.values()]:
            self.find("evb_entry_foreign", f"entry {index} is named by nothing", index)

    def proves_sessions(self):
        return self.phase == "after" and self.ended == self.named
