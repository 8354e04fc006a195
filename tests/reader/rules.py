"""Rules over entries: docs/FORMAT.md, sections 13.2 and 13.3, and the names of findings (13.4)."""

import bisect
import hashlib
import re

from reader.attest import Attested
from reader.basics import CannotCheck, Refused
from reader.blobs import Blobs
from reader.boot import Boots
from reader.kept import Pruning
from reader.profile import KINDS, U32_MAX, U64_MAX, decode
from reader.signed import ed25519_verifies, parse_vkey

# ----------------------------------------------------------------------------------------------------------
# Kernel numbers
# ----------------------------------------------------------------------------------------------------------

RUNS_MAX = 65_536
RUNS_TOTAL_MAX = 1 << 20
COUNTERS_MAX = 65_536


class Counter:
    """Which numbers of one counter are accounted for: all below `settled`, and the runs above it."""

    def __init__(self):
        self.settled = 0
        self.next = 0
        self.edge = 0  # missing numbers below it may be those of withheld entries
        self.withheld = 0  # entries withheld when the row before was stated, or the capture first armed
        self.firsts = []  # sorted first numbers of the runs above `settled`
        self.lasts = []  # their last numbers

    def account(self, first, last):
        """False if any of these was accounted for before; then nothing changes."""
        at = bisect.bisect_right(self.firsts, last)
        if first < self.settled or (at > 0 and self.lasts[at - 1] >= first):
            return False
        if at > 0 and self.lasts[at - 1] == first - 1:
            self.lasts[at - 1] = last
        elif at < len(self.firsts) and self.firsts[at] == last + 1:
            self.firsts[at] = first
        else:
            self.firsts.insert(at, first)
            self.lasts.insert(at, last)
            return self.absorb()
        # The run before may now touch the run after.
        if 0 < at < len(self.firsts) and self.lasts[at - 1] + 1 == self.firsts[at]:
            self.lasts[at - 1] = self.lasts.pop(at)
            self.firsts.pop(at)
        return self.absorb()

    def absorb(self):
        while self.firsts and self.firsts[0] == self.settled:
            self.settled = self.lasts.pop(0) + 1
            self.firsts.pop(0)
        return True

    def top(self):
        return self.lasts[-1] + 1 if self.lasts else self.settled

    def take_holes(self, limit):
        """The runs of numbers below `limit` that are not accounted for; from now on they are."""
        while self.settled < limit:
            end = min(limit, self.firsts[0]) if self.firsts else limit
            yield self.settled, end - 1
            self.settled = end
            self.absorb()

    def missing_below(self, limit):
        return sum(min(first, limit) - past for past, first in
                   zip([self.settled] + [last + 1 for last in self.lasts], self.firsts + [limit]) if past < limit)


# ----------------------------------------------------------------------------------------------------------
# Rules over entries
# ----------------------------------------------------------------------------------------------------------

CLAIMS = ("integrity", "authenticity", "continuity", "non_equivocation", "host_state", "coverage", "time_bounds",
          "sessions")
# The claim that each finding breaks.
FINDINGS = {
    "integrity": "checkpoint_missing checkpoint_malformed root_mismatch tile_missing tile_differs bundle_missing "
                 "bundle_malformed entry_malformed entry_altered index_wrong previous_mismatch control_number_wrong "
                 "reference_wrong segment_malformed evb_malformed "
                 "kept_malformed kept_omitted pruned_unrecorded evb_proof_wrong evb_entry_foreign commitment_wrong "
                 "sidecar_malformed value_absent blob_altered blob_absent",
    "authenticity": "checkpoint_unsigned checkpoint_forged epoch_missing epoch_forged origin_untrusted "
                    "log_key_untrusted tier_too_low attestation_key_wrong attestation_key_changed attestation_key_missing "
                    "attestation_malformed attestation_forged attestation_signer_wrong attestation_data_wrong ak_untrusted "
                    "challenge_unanswered challenge_unbelieved",
    "continuity": "genesis_missing genesis_repeated genesis_wrong epoch_wrong genesis_untrusted first_epoch_untrusted "
                  "log_truncated head_mismatch attestation_order_wrong tpm_clock_back tpm_reset_back "
                  "tpm_reset_unexplained boot_without_reset anchor_number_wrong anchor_wrong anchor_mismatch "
                  "nv_counter_wrong nv_counter_gap nv_counter_capped epoch_uncounted counter_untrusted "
                  "reset_count_untrusted anchor_gap_too_long",
    "host_state": "pcr_digest_wrong measured_malformed measured_mismatch pcr_policy_violated",
    "non_equivocation": "equivocation split_view cosignature_forged",
    "coverage": "kernel_number_wrong number_repeated number_hole counter_wrong gap_count_wrong loss_unexplained "
                "loss_accounted event_outside_run hooks_not_attached gap_too_long loss_too_large not_covered_unaccepted",
    "sessions": "session_unknown session_number_wrong session_ended session_hash_wrong revoked_wrong "
                "evb_entry_omitted evb_control_omitted",
    None: "claim_not_proved",
}
BREAKS = {name: claim for claim, names in FINDINGS.items() for name in names.split()}
KEPT_MAX = 1_000
# What is kept in memory is bounded; a log with more is not checked. FORMAT.md section 13 permits limits like these.
SESSIONS_MAX = 1_000_000
REFERENCES_MAX = 4_000_000
CLASS_NAMES = ("process", "cgroup", "network", "file", "privilege")
CLASS_OF = {kind: number for number, kinds in enumerate((
    "fork exec exec_failed exit",
    "cgroup",
    "connect connect_done flow send listen accept connect_unix connect_vsock socket",
    "open file_change file_close file_map file_received",
    "creds process_access signal mount namespace bpf kernel_load key io_uring",
)) for kind in kinds.split()}
FILE_CLASS = CLASS_OF["open"]


class Outcome:
    """Findings and notes so far; the first thousand of each are kept, all are counted."""

    def __init__(self):
        self.findings, self.notes, self.windows = [], [], []
        self.total, self.names, self.failed = 0, set(), set()

    def find(self, name, text, index=None):
        """`index` is the entry that the finding is about, for those that are about one."""
        self.total += 1
        self.names.add(name)
        self.failed.add(BREAKS[name])
        if len(self.findings) < KEPT_MAX:
            self.findings.append((name, index, text))

    def note(self, name, text):
        if len(self.notes) < KEPT_MAX:
            self.notes.append((name, text))


def newer_version(data):
    """The version of an entry that says it is of a newer version than this reader knows, or None."""
    said = re.match(rb'\{"v":([1-9][0-9]{0,9})(?![0-9])', data)
    version = int(said[1]) if said else 0
    return version if 1 < version <= U32_MAX else None


def alive_at(index, entry):
    """A sign of life: the entry, its boot time and its wall time."""
    return index, entry["boot"], entry["wall"]


class Session:
    def __init__(self, ident, leaf, index, withheld):
        self.ident, self.next, self.ended = ident, 1, False
        self.missing = 0  # entries that are withheld
        self.known = (index, withheld)  # where its chain was known last, and how many entries were withheld until then
        self.missing_after = index  # the latest such place before the last missing entry
        self.held, self.released, self.permitted = False, 0, 0
        self.hash = hashlib.sha256(b"affiant/session/v1" + leaf).digest()
        self.counts = {}  # entries made from kernel events, by kind

    def skip(self, number, withheld):
        """The chain goes on with this number: those before may be of withheld entries, as far as there are any."""
        missing = number - self.next
        if 0 < missing <= withheld - self.known[1]:
            self.missing += missing
            self.missing_after = self.known[0]
            self.next, self.hash = number, None

    def may_have_had(self, acts):
        if not self.missing:
            return acts == self.counts
        more = sum(max(0, count - self.counts.get(kind, 0)) for kind, count in acts.items())
        return (all(kind in CLASS_OF and count >= max(1, self.counts.get(kind, 0)) for kind, count in acts.items())
                and set(self.counts) <= set(acts) and more <= self.missing)

    def permitted_up_to(self, permitted):
        count, first = permitted
        return first if not self.held and count > self.released else self.permitted

    def hold(self, on, permitted):
        if on and not self.held:
            self.permitted = self.permitted_up_to(permitted)
        elif self.held and not on:
            self.released = permitted[0]
        self.held = on


class Audit:
    """FORMAT.md sections 13.2 and 13.3, one entry after the other."""

    PARTIAL = False

    def __init__(self, origin, strict, out, trusted=()):
        self.origin, self.strict, self.out, self.find = origin, strict, out, out.find
        self.attested = Attested(origin, out, self.PARTIAL, trusted)
        self.claimed_tier = "T0"
        self.sighted, self.overflowed = True, False
        self.shift = 0  # by how much the last entry's `i` was off
        self.log_key = self.first_epoch_key = self.epoch = None
        self.control_next = 0
        self.sessions, self.workloads, self.unknowns, self.policies = {}, set(), set(), set()
        self.counters, self.runs_kept = {}, 0
        self.cut_off = set()  # captures whose last run was followed by another without `disarmed`
        self.capture = None  # of the armed run
        self.handed_over = None  # of the last run, if it was disarmed for an upgrade
        self.runs = 0
        self.boots = Boots(self.find)
        self.values = None  # committed values, when somebody wants them followed
        self.blobs = Blobs(out, strict)
        self.newer = False  # whether an entry of a newer version was reported
        self.run = None  # the latest run
        self.windows = []  # kind, index of the first and of the last entry
        self.largest = None  # length of the longest window between two entries (None if not known) and its last entry
        self.lost = 0  # events declared lost
        self.pruning = Pruning()
        self.spans = {}  # by capture: entries withheld when it was first armed, and when another was (None as long as not)
        self.at_edge = 0  # missing numbers that may be those of withheld entries
        self.uncovered = {}  # what runs say they do not capture, with the first entry that says so

    def withheld(self, index, count):
        """So many entries from this index on are withheld."""
        if index == 0:
            self.find("genesis_missing", "entry 0 is withheld")
        if self.values is not None:
            self.values.withheld = index + count
        self.pruning.withheld(index, count)

    def entry(self, index, data, leaf, previous):
        try:
            entry = decode(data)
        except Refused as why:
            newer = newer_version(data) is not None
            # All that follow are of the newer version too: once is enough.
            if not (newer and self.newer):
                self.find("entry_malformed", f"entry {index} is not in the permitted form: {why}", index)
            self.newer = self.newer or newer
            self.sighted = False
            return
        if self.values is not None:
            self.values.entry(entry)
        self.blobs.entry(entry)
        body, kind = entry["body"], entry["kind"]
        own = entry["i"]
        # Behind one removed or added entry, all others go on counting: that is one finding.
        if own - index not in (0, self.shift):
            self.find("index_wrong", f"entry {index} says that it is entry {own}", index)
        self.shift = own - index
        if previous is not None and entry["prev"] != previous:
            self.find("previous_mismatch", f"entry {index} does not follow the entry before it", index)
        if index == 0 and kind != "genesis":
            self.find("genesis_missing", "entry 0 is not a genesis")
        if kind == "genesis":
            self.genesis(index, body)
        elif kind == "epoch":
            self.epoch_entry(index, own, body)
        if self.sighted:
            self.pruning.entry(index, entry)
            self.control_chain(index, entry)
            self.session_chain(index, entry, leaf)
            self.kernel_number(index, entry)
            self.references(index, entry)
            self.attest(index, entry)
            handler = getattr(self, "on_" + kind, None)
            if handler is not None:
                handler(index, entry)

    def attest(self, index, entry):
        self.attested.entry(index, entry, alive_at(index, entry), self.listed)
        if entry["kind"] == "anchor" and self.attested.quoted == index:
            self.boots.quoted(index, {register: bytes.fromhex(value) for register, value in entry["body"]["pcrs"]})

    def listed(self, kind, since, until):
        """A window in which the agent was heard of."""
        if len(self.windows) < KEPT_MAX:
            self.windows.append([kind, since[0], until[0]])

    def genesis(self, index, body):
        if index != 0:
            self.find("genesis_repeated", f"entry {index} is a second genesis", index)
            return
        if body["format"] != 1:
            self.find("genesis_wrong", "the genesis names another format")
        if body["origin"] != self.origin.encode():
            self.find("genesis_wrong", "the genesis names another origin than the checkpoint")
        try:
            name, key = parse_vkey(body["log_key"].decode("utf-8"))
        except (Refused, UnicodeDecodeError):
            name, key = None, None
        if name == self.origin:
            self.log_key = (name, key)
        else:
            self.find("genesis_wrong", "the genesis does not name a key of this log")
        self.tier_claimed(body)
        self.boots.boot(body["boot_id"])
        if "predecessor" in body:
            self.out.note("predecessor", "this log continues another, which must be verified by itself")

    def tier_claimed(self, body):
        self.claimed_tier = max(self.claimed_tier, body["key_tier"])

    def epoch_entry(self, index, own, body):
        number, how = body["number"], body["how"]
        is_first = self.first_epoch_key is None

        def wrong(what):
            self.find("epoch_wrong", f"entry {index} begins an epoch with a wrong {what}", index)

        if self.sighted and number != (0 if self.epoch is None else self.epoch[0] + 1):
            wrong("number")
        if body["first_size"] != own + 1:
            wrong("first size")
        if (self.sighted and (how == "first") != is_first) or (how == "continued") != ("sig_previous" in body):
            wrong("succession")
        if ("attest" in body) != ("sig_attest" in body):
            wrong("attestation")
        counter = body["counter"].to_bytes(8, "big") if "counter" in body else b""
        fields = (self.origin.encode(), number.to_bytes(8, "big"), body["public_key"],
                  body["first_size"].to_bytes(8, "big"), how.encode(), counter)
        joined = b"".join(len(field).to_bytes(4, "big") + field for field in fields)
        statement = hashlib.sha256(b"affiant/epoch/v1" + joined).digest()
        if self.log_key is not None and not ed25519_verifies(self.log_key[1], statement, body["sig_log"]):
            self.find("epoch_forged", f"entry {index}: the log key's signature does not hold", index)
        if "sig_previous" in body and self.epoch is not None and self.sighted:
            if not ed25519_verifies(self.epoch[1], statement, body["sig_previous"]):
                self.find("epoch_forged", f"entry {index}: the previous epoch's signature does not hold", index)
        if how == "orphan":
            vouchers = "only the log key vouches for"
            if self.sighted and self.attested.is_stepped_for(body):
                vouchers = f"the log key vouches for, and a step of the TPM's counter to {body['counter']}"
            self.out.note("orphan_epoch", f"entry {index} begins an epoch that {vouchers}")
        if is_first and self.sighted:
            self.first_epoch_key = body["public_key"]
        self.epoch = (number, body["public_key"])

    def control_chain(self, index, entry):
        expected = self.control_next if KINDS[entry["kind"]][0] else None
        seen = entry.get("c")
        if seen != expected:
            self.find("control_number_wrong", f"entry {index} has control number {seen}, expected {expected}", index)
        if seen is not None or expected is not None:
            self.control_next = (expected if seen is None else seen) + 1

    def session_chain(self, index, entry, leaf):
        seen, named, kind, body = entry.get("n"), entry.get("s"), entry["kind"], entry["body"]
        if kind == "issued":
            if seen != 0:
                self.find("session_number_wrong", f"entry {index} issues a session and has number {seen}", index)
            self.parent_of(index, body)
            self.sessions[entry["i"]] = Session(body["id"], leaf, index, self.pruning.count)
            if len(self.sessions) > SESSIONS_MAX:
                raise CannotCheck(f"more than {SESSIONS_MAX} sessions")
            return
        if named is None:
            if seen is not None:
                self.find("session_number_wrong", f"entry {index} has a number and no session", index)
            if kind == "revoked":
                self.find("revoked_wrong", f"entry {index} ends no session", index)
            return
        session = self.sessions.get(named)
        if session is None:
            self.find("session_unknown", f"entry {index} is of session {named}, which was not issued", index)
            return
        if session.ended:
            self.find("session_ended", f"entry {index} is of session {named}, which had ended", index)
        if seen is not None:
            session.skip(seen, self.pruning.count)
        if seen != session.next:
            self.number_differs(index, named, seen, session.next)
        if kind == "revoked":
            self.revoked(index, named, session, body)
        session.next = (session.next if seen is None else seen) + 1
        session.hash = None if session.hash is None else hashlib.sha256(session.hash + leaf).digest()
        session.known = (index, self.pruning.count)
        if kind in CLASS_OF:
            session.counts[kind] = session.counts.get(kind, 0) + 1

    def parent_of(self, index, body):
        if "parent" in body and body["parent"] not in self.sessions:
            self.find("session_unknown", f"entry {index} names session {body['parent']}, which was not issued", index)

    def number_differs(self, index, named, seen, expected):
        self.find("session_number_wrong", f"entry {index} has number {seen} in {named}, expected {expected}", index)

    def revoked(self, index, named, session, body):
        if body["id"] != session.ident:
            self.find("revoked_wrong", f"entry {index} ends session {named} under another id", index)
        if body["entries"] != session.next:
            self.find("revoked_wrong", f"entry {index} counts {body['entries']} entries, not {session.next}", index)
        acts = dict(body["acts"])
        if len(acts) != len(body["acts"]) or not session.may_have_had(acts):
            self.find("revoked_wrong", f"entry {index} counts the kinds of its session wrongly", index)
        if session.hash not in (None, body["hash"]):
            self.find("session_hash_wrong", f"entry {index} ends session {named} with another running hash", index)
        session.ended = True

    def kernel_number(self, index, entry):
        wanted = CLASS_OF.get(entry["kind"])
        cpu, number_class, seq = entry.get("q", (None, None, None))
        if number_class != wanted:
            self.find("kernel_number_wrong", f"entry {index} must have a kernel number of its class, or none", index)
        elif wanted is not None and self.capture is None:
            self.find("event_outside_run", f"entry {index} is a kernel event outside any run", index)
        elif wanted is not None:
            self.run["alive"] = alive_at(index, entry)
            self.account(index, (self.capture, cpu, number_class), seq, seq)

    def counter(self, key):
        if key not in self.counters:
            if len(self.counters) >= COUNTERS_MAX:
                self.overflowed = True
                return None
            self.counters[key] = Counter()
            if key[0] in self.spans:
                self.counters[key].withheld = self.spans[key[0]][0]
            else:
                self.counters[key].withheld = U64_MAX
        return self.counters[key]

    def account(self, index, key, first, last):
        counter = self.counter(key)
        if counter is None:
            return
        kept = len(counter.firsts)
        accounted = counter.account(first, last)
        self.runs_kept += len(counter.firsts) - kept
        if not accounted:
            self.find("number_repeated", f"entry {index} accounts again for {first} to {last} of "
                                             f"{CLASS_NAMES[key[2]]} on processor {key[1]}", index)
        if counter.firsts and (len(counter.firsts) > RUNS_MAX or self.runs_kept > RUNS_TOTAL_MAX):
            self.holes(index, key, counter, counter.top())

    def holes(self, index, key, counter, limit):
        kept = len(counter.firsts)
        self.at_edge += sum(last - first + 1 for first, last in counter.take_holes(min(counter.edge, limit)))
        for first, last in counter.take_holes(limit):
            self.find("number_hole", f"entry {index}: {first} to {last} of {CLASS_NAMES[key[2]]} on processor "
                                         f"{key[1]} are neither in the log nor declared lost", index)
        self.runs_kept += len(counter.firsts) - kept

    def references(self, index, entry):
        wanted = [(entry["w"], self.workloads)] if "w" in entry else []
        if "verdict" in entry:
            wanted.append((entry["verdict"]["set"], self.policies))
        if entry["kind"] in ("erased", "secret") and entry["body"]["of"] >= entry["i"]:
            self.find("reference_wrong", f"entry {index} refers to entry {entry['body']['of']}, which is not earlier", index)
        if entry["kind"] == "identified":
            wanted += [(entry["body"]["of"], self.unknowns), (entry["body"]["workload"], self.workloads)]
        for to, known in wanted:
            if to not in known and len(known) < REFERENCES_MAX:
                self.find("reference_wrong", f"entry {index} refers to entry {to}, which is not what it must be", index)

    def on_workload(self, _, entry):
        if len(self.workloads) < REFERENCES_MAX:
            self.workloads.add(entry["i"])

    def on_policy(self, _, entry):
        if len(self.policies) < REFERENCES_MAX:
            self.policies.add(entry["i"])

    def on_hold(self, index, entry):
        session = self.sessions.get(entry["body"]["session"])
        if session is None:
            self.find("session_unknown", f"entry {index} names session {entry['body']['session']}, which was not issued",
                      index)
        else:
            session.hold(entry["body"]["on"], self.pruning.permitted())

    def on_file_folded(self, index, entry):
        body = entry["body"]
        if any(number_class != FILE_CLASS for _, number_class, _, _ in body["ranges"]):
            self.find("kernel_number_wrong", f"entry {index} folds numbers of another class", index)
        elif self.capture is None:
            self.find("event_outside_run", f"entry {index} folds kernel events outside any run", index)
        else:
            self.ranges(index, self.capture, body)

    def on_unknown(self, _, entry):
        if len(self.unknowns) < REFERENCES_MAX:
            self.unknowns.add(entry["i"])

    def on_measured(self, index, entry):
        self.boots.measured(index, entry["body"])

    def on_armed(self, index, entry):
        body = entry["body"]
        self.boots.boot(body["boot_id"], armed=True)
        self.runs += 1
        self.tier_claimed(body)
        if self.capture is not None:
            self.cut_off.add(self.capture)
        self.cut_off.discard(body["capture_id"])
        if self.run is not None and self.run["capture"] in self.spans:
            self.spans[self.run["capture"]][1] = self.pruning.count
        self.spans.setdefault(body["capture_id"], [self.pruning.count, None])[1] = None
        now = alive_at(index, entry)
        self.window_before(body, now)
        for item in body["not_covered"]:
            self.uncovered.setdefault(item["what"], index)
        self.run = {"capture": body["capture_id"], "boot_id": body["boot_id"], "alive": now, "beat": now, "disarmed": False,
                    "heartbeat_ms": body["cadence"]["heartbeat_ms"]}
        self.capture, self.handed_over = body["capture_id"], None

    def window_before(self, body, now):
        """The window that ends with a run that begins `now`."""
        run = self.run
        if run is None:
            self.window("before_first_run", None, now, now[1])
            return
        same_boot = run["boot_id"] == body["boot_id"]
        if body["resumed"] and body["capture_id"] == run["capture"]:
            kind = "resumed"
        elif not run["disarmed"]:
            kind = "run_cut"
        else:
            kind = "stopped" if same_boot else "restarted"
        clock = 1 if same_boot else 2
        self.window(kind, run["alive"], now, now[clock] - run["alive"][clock])

    def window(self, kind, since, until, length):
        if len(self.windows) < KEPT_MAX:
            self.windows.append([kind, since and since[0], until and until[0]])
        if since and until:
            # A clock that went back hides how long it was.
            length = U64_MAX + 1 if length < 0 else length
            if self.largest is None or length > self.largest[0]:
                self.largest = (length, until[0])

    def on_heartbeat(self, index, entry):
        body = entry["body"]
        self.stated(index, body)
        if not body["hooks_ok"]:
            self.find("hooks_not_attached", f"entry {index} did not find the hooks attached", index)
        run = self.run
        if run is None or run["disarmed"]:
            return
        now = alive_at(index, entry)
        silent = now[1] - run["beat"][1]
        if silent > 3_000_000 * run["heartbeat_ms"] + 1_000_000_000:
            self.window("silent", run["beat"], now, silent)
        run["beat"] = run["alive"] = now

    def on_disarmed(self, index, entry):
        body = entry["body"]
        self.stated(index, body)
        self.capture = None
        if self.run is not None:
            self.run.update(capture=body["capture_id"], alive=alive_at(index, entry), disarmed=True)
        # A newer agent takes over what the rings still hold.
        self.handed_over = body["capture_id"] if body["cause"] == "upgrade" else None

    def stated(self, index, body):
        if body["capture_id"] != self.capture:
            self.find("event_outside_run", f"entry {index} states counters of a capture that is not armed", index)
        else:
            for cpu, number_class, following, _, settled in body["counters"]:
                key = (self.capture, cpu, number_class)
                counter = self.counter(key)
                if counter is None:
                    continue
                if following < counter.next or settled > following:
                    self.find("counter_wrong", f"entry {index} states a counter that is not possible", index)
                    continue
                counter.next = following
                if self.pruning.count > counter.withheld:
                    kept = len(counter.firsts)
                    # Numbers below were settled by entries that may be withheld; those from there on may still be theirs.
                    for _ in counter.take_holes(settled):
                        pass
                    self.runs_kept += len(counter.firsts) - kept
                    counter.edge, counter.withheld = max(counter.edge, following), self.pruning.count
                self.holes(index, key, counter, settled)
        for named, last, running in body["sessions"]:
            self.stated_session(index, named, last, running)

    def stated_session(self, index, named, last, running):
        session = self.sessions.get(named)
        if session is None:
            self.find("session_unknown", f"entry {index} states session {named}, which was not issued", index)
            return
        if not session.ended:
            session.skip(last + 1, self.pruning.count)
        if not session.ended and session.next == last + 1 and session.hash in (None, running):
            session.hash, session.known = running, (index, self.pruning.count)
        else:
            self.find("session_hash_wrong", f"entry {index} states session {named} wrongly", index)

    def on_gap(self, index, entry):
        body = entry["body"]
        self.ranges(index, body["capture_id"], body)
        text = f"entry {index}: {body['count']} events lost, cause {body['cause']}"
        self.lost += body["count"]
        if body["cause"] == "unexplained":
            self.find("loss_unexplained", text, index)
        elif self.strict:
            self.find("loss_accounted", text, index)
        self.out.note("gap", text)

    def ranges(self, index, capture, body):
        """Accounts for the ranges of a body, which must hold as many numbers as it counts."""
        total, valid = 0, True
        for cpu, number_class, first, last in body["ranges"]:
            if not 0 < last - first + 1 <= U64_MAX:
                valid = False
                continue
            total += last - first + 1
            self.account(index, (capture, cpu, number_class), first, last)
        if not valid or total != body["count"]:
            self.find("gap_count_wrong", f"entry {index} counts {body['count']} events, its ranges {total}", index)

    def on_recovered(self, index, entry):
        body = entry["body"]
        if body["cause"] == "crash":
            self.out.note("recovered", f"entry {index}: the log was recovered after a crash")

    def finish(self, size):
        if size == 0:
            self.find("genesis_missing", "the log is empty")
        if not self.sighted:
            return
        self.attested.close(self.listed)
        if self.run is not None:
            self.window("ended" if self.run["disarmed"] else "open_end", self.run["alive"], None, 0)
        in_flight = cut_off = 0
        for key, counter in sorted(self.counters.items()):
            end = max(counter.next, counter.top())
            if key[0] in self.spans:
                until = self.spans[key[0]][1]
                if (self.pruning.count if until is None else until) > counter.withheld:
                    counter.edge = end
            self.at_edge += sum(last - first + 1 for first, last in counter.take_holes(min(counter.edge, end)))
            if key[0] in (self.capture, self.handed_over):
                in_flight += counter.missing_below(end)
            elif key[0] in self.cut_off:
                cut_off += counter.missing_below(end)
            else:
                self.holes(size - 1, key, counter, end)
        if in_flight + cut_off:
            self.out.note("in_flight", f"{in_flight + cut_off} events were numbered and not written before a run's end")
        self.lost += cut_off
        if self.pruning.finish(self.out):
            for issued, session in sorted(self.sessions.items()):
                judged = session.held or self.pruning.permits <= session.released
                if judged and session.missing and session.missing_after >= session.permitted:
                    self.find("kept_omitted", f"session {issued} was on hold, and entries of it are not kept", issued)
        if self.at_edge:
            self.out.note("pruned_numbers", f"{self.at_edge} numbers may be those of entries that are pruned")

    def compare_limits(self, limits):
        """What is missing, with what a trust file allows; only if sight was not lost."""
        gap, loss, accepted = (limits[key] for key in ("largest_gap_seconds", "largest_loss_events", "accepted_not_covered"))
        if gap is not None and self.largest is not None and self.largest[0] > min(gap * 1_000_000_000, U64_MAX):
            self.find("gap_too_long", f"the agent was not heard of for longer than {gap} s", self.largest[1])
        if loss is not None and min(self.lost, U64_MAX) > loss:
            self.find("loss_too_large", f"{self.lost} events were lost, {loss} are allowed")
        for what, index in self.uncovered.items() if accepted is not None else ():
            if what not in accepted:
                self.find("not_covered_unaccepted", f"entry {index} does not cover {what!r}", index)
