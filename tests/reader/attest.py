"""What a TPM attests of a log: docs/FORMAT.md, sections 8.1 to 8.4, 13.3 and 13.6."""

import base64
import hashlib

from reader import certificates, tpm
from reader.basics import Refused

CLOCK_BACK_MS_MAX = 4_100
ANCHORS_MAX = 4_000_000
CERTIFICATES_MAX = 1_024
NONE_YET, UNUSABLE = "none yet", "unusable"


def f(field):
    return len(field).to_bytes(4, "big") + field


def u64(number):
    return number.to_bytes(8, "big")


def statement(tag, *fields):
    return hashlib.sha256(tag + b"".join(f(field) for field in fields)).digest()


def previous_of(body):
    return bytes.fromhex(body["previous"]) if "previous" in body else None


def anchor_statement(origin, body):
    text = f"{origin}\n{body['size']}\n{base64.b64encode(body['root']).decode()}\n".encode()
    return statement(b"affiant/anchor/v1", origin.encode(), u64(body["epoch"]), u64(body["number"]), previous_of(body),
                     hashlib.sha256(text).digest(), body.get("nonce", b""))


def counter_statement(origin, body):
    return statement(b"affiant/counter/v1", origin.encode(), body["op"].encode(), body["index"].to_bytes(4, "big"),
                     u64(body["value"]), previous_of(body) or bytes(32))


class Attested:
    """The rules, one entry after the other. `partial`: of a bundle; `trusted`: names of keys in the trust file."""

    def __init__(self, origin, out, partial, trusted):
        self.origin, self.out, self.find, self.partial, self.trusted = origin, out, out.find, partial, trusted
        self.key = NONE_YET
        self.keys = []  # (index, name)
        self.credentials = []  # of each key: point, qualified name, body and wall time of the entry that shows the most
        self.wanted, self.contents = set(), {}  # digests of certificates, and their contents
        self.previous = bytes(32)
        self.last_control = -1
        self.stamp = self.boot = self.reset = self.stale = self.unexplained = None
        self.next_number = 0
        self.pending = []  # [index, size, root]
        self.epochs = []  # (number, first size)
        self.counter_index = self.certified = self.certified_at = self.intent = None
        self.stepped = False
        self.anchor_ms = self.unanchored = self.edge = None
        self.first_counter = self.first_reset = self.longest = None
        self.anchored = False
        self.challenge = self.answering = self.answer = None  # bytes; (index, name of the key), before and after its root is settled
        self.quoted = None  # the latest anchor whose registers are those that were quoted

    def entry(self, index, entry, now, window):
        """`window` takes a kind and the two signs of life that it is between."""
        kind, body = entry["kind"], entry["body"]
        if self.partial and "c" in entry:
            if entry["c"] != self.last_control + 1:
                self.forget()
            self.last_control = entry["c"]
        if kind == "attestation_key":
            self.attestation_key(index, body, now)
        elif kind == "anchor":
            self.anchor(index, entry["i"], body, now, window)
        elif kind == "counter":
            self.counter(index, body, now, window)
        elif kind == "epoch":
            self.epoch(index, body)
        elif kind == "armed":
            self.armed(body, now, window)
        elif kind in ("heartbeat", "disarmed"):
            self.edge, self.stepped = now, False
            self.run_goes_on()
            if kind == "disarmed":
                self.close(window)

    def forget(self):
        """Entries were withheld."""
        self.previous = self.next_number = self.certified = self.certified_at = self.intent = self.counter_index = None
        self.boot = self.reset = self.stale = self.unexplained = None
        self.stepped = True

    def attestation_key(self, index, body, now):
        try:
            qualified = tpm.check_name(body["qualified_name"])
            point = tpm.attestation_key(body["public"])
            name = tpm.sha256_name(body["public"])
            if name != body["name"]:
                raise Refused("another name than that of the public area")
        except Refused as why:
            self.key = UNUSABLE
            self.find("attestation_key_wrong", f"entry {index}: {why}", index)
            return
        if self.keys and self.keys[-1][1] != name:
            if name in self.trusted:
                self.stamp = self.boot = self.reset = self.stale = self.unexplained = None
                self.certified = self.intent = self.counter_index = None
            else:
                self.find("attestation_key_changed", f"entry {index} introduces another attestation key", index)
        shown = (point, qualified, body, now[2])
        if not self.keys or self.keys[-1][1] != name:
            self.keys.append((index, name))
            self.credentials.append(shown)
            self.want(body)
        elif body["certificates"]:
            self.credentials[max(at for at, (_, known) in enumerate(self.keys) if known == name)] = shown
            self.want(body)
        self.key = (point, qualified)

    def want(self, body):
        for blob in body["certificates"] + body["ek_certificates"]:
            if len(self.wanted) < CERTIFICATES_MAX:
                self.wanted.add(blob["sha256"])

    def blob(self, digest, content):
        if digest in self.wanted and len(content) <= certificates.BYTES_MAX:
            self.contents[digest] = content

    def vouched(self, name, shown, known, beginning):
        """The tier that certificates are worth."""
        point, qualified, body, wall = shown
        if not body["certificates"] or not known["key_roots"]:
            return "T0"
        own = [self.contents.get(blob["sha256"]) for blob in body["certificates"]]
        of_ek = [self.contents.get(blob["sha256"]) for blob in body["ek_certificates"]]
        case = {**beginning, "name": name, "qualified_name": qualified, "x": point[0], "y": point[1], "certificates": own,
                "ek_certificates": [] if None in of_ek else of_ek, "roots": known["key_roots"],
                "ek_roots": known["endorsement_roots"], "seconds": wall // 10**9}
        try:
            if None in own or None in (beginning[key] for key in ("log_key", "genesis", "first_epoch_key")):
                raise Refused("a certificate that is not there, or a log whose beginning is not known")
            return certificates.who_vouches(case)[1]
        except (Refused, ValueError) as why:
            self.out.note("certificates_refused", f"nobody vouches for an attestation key: {why}")
            return "T0"

    def attestation(self, index, attest, sig, previous, expected):
        if previous is not None and self.previous is not None and previous != self.previous:
            self.find("attestation_order_wrong", f"entry {index} does not follow the attestation before it", index)
        self.previous = hashlib.sha256(attest).digest()
        if self.key == UNUSABLE:
            return None
        if self.key == NONE_YET:
            if not self.partial:
                self.find("attestation_key_missing", f"entry {index} is attested by no key", index)
            return None
        point, qualified = self.key
        try:
            r, s = tpm.signature(sig)
            if not tpm.ecdsa_verifies(point, attest, r, s):
                self.find("attestation_forged", f"entry {index} holds an attestation of another key", index)
                return None
            attested = tpm.Attest(attest)
        except Refused as why:
            self.find("attestation_malformed", f"entry {index}: {why}", index)
            return None
        if attested.signer != qualified:
            self.find("attestation_signer_wrong", f"entry {index} holds an attestation of a key elsewhere", index)
        elif attested.extra != expected:
            self.find("attestation_data_wrong", f"entry {index} holds an attestation of something else", index)
        else:
            self.clock(index, attested.clock)
            return attested
        return None

    def clock(self, index, now):
        reset, restart, clock = now
        if self.stamp is not None:
            before = self.stamp
            if reset < before[0]:
                self.find("tpm_reset_back", f"entry {index}: {reset} resets after {before[0]}", index)
            elif reset == before[0]:
                if restart < before[1] or clock < before[2] or (restart == before[1] and clock == before[2]):
                    self.find("tpm_clock_back", f"entry {index}: {clock} ms after {before[2]} ms", index)
            elif clock + CLOCK_BACK_MS_MAX < before[2]:
                self.find("tpm_clock_back", f"entry {index}: {clock} ms after {before[2]} ms", index)
        self.stamp = now
        if self.first_reset is None:
            self.first_reset = reset
        if self.reset is None:
            if self.stale == reset:
                self.find("boot_without_reset", f"entry {index}: {reset} resets as before the boot", index)
            self.stale, self.reset = None, reset
        elif self.reset != reset and (self.unexplained is None or self.unexplained[1] != reset):
            self.unexplained = (index, reset)

    def run_goes_on(self):
        if self.unexplained is not None:
            index, self.reset = self.unexplained
            self.find("tpm_reset_unexplained", f"entry {index}: {self.reset} resets, and no boot", index)
            self.unexplained = None

    def armed(self, body, now, window):
        if self.boot == body["boot_id"]:
            self.run_goes_on()
        elif self.unexplained is not None:
            self.reset, self.stale, self.unexplained = self.unexplained[1], None, None
        elif self.boot is not None:
            self.stale = self.stale if self.reset is None else self.reset
            self.reset = None
        self.boot = body["boot_id"]
        self.close(window)
        self.anchor_ms = body["cadence"].get("anchor_ms")
        self.unanchored, self.edge = (now, None), now

    def close(self, window):
        if self.unanchored is not None:
            since = self.unanchored[0]
            self.without_anchor(since, self.edge, max(self.edge[1] - since[1], 0), window)
            self.unanchored = None

    def without_anchor(self, since, until, length, window):
        if self.longest is None or length > self.longest[0]:
            self.longest = (length, until[0])
        if self.anchor_ms is not None and length > 3_000_000 * self.anchor_ms + 1_000_000_000:
            window("unanchored", since, until)

    def anchor(self, index, own, body, now, window):
        if self.next_number not in (None, body["number"]):
            self.find("anchor_number_wrong", f"entry {index} is anchor {body['number']}, not {self.next_number}", index)
        self.next_number = body["number"] + 1

        def wrong(what):
            self.find("anchor_wrong", f"entry {index} is an anchor with a wrong {what}", index)

        if not (self.pending[-1][1] if self.pending else 0) <= body["size"] <= own:
            wrong("size")
        covering = next((number for number, first in reversed(self.epochs) if first <= body["size"]), None)
        if covering != body["epoch"]:
            wrong("epoch")
        if "nonce" in body and not 16 <= len(body["nonce"]) <= 32:
            wrong("nonce")
        attested = self.attestation(index, body["attest"], body["sig"], previous_of(body),
                                    anchor_statement(self.origin, body))
        if attested is None:
            return
        if attested.kind != tpm.QUOTE:
            self.find("attestation_malformed", f"entry {index} holds no quote", index)
            return
        registers = [register for register, _ in body["pcrs"]]
        values = b"".join(bytes.fromhex(value) for _, value in body["pcrs"])
        selected = sum(1 << register for register in registers if register < 24)
        if (any(a >= b for a, b in zip(registers, registers[1:])) or any(register >= 24 for register in registers)
                or attested.selections != [(tpm.SHA256, selected)]
                or hashlib.sha256(values).digest() != attested.digest):
            self.find("pcr_digest_wrong", f"entry {index} lists other registers than were quoted", index)
        else:
            self.quoted = index
        if self.unanchored is not None:
            since, at = self.unanchored
            if at is not None and at[0] == attested.clock[0]:
                length = max(attested.clock[2] - at[2], 0) * 1_000_000
            else:
                length = max(now[1] - since[1], 0)
            self.unanchored = (now, attested.clock)
            self.without_anchor(since, now, length, window)
        self.edge = now
        if self.challenge is not None and self.answering is None and body.get("nonce") == self.challenge:
            self.answering = (index, self.keys[-1][1])
        if len(self.pending) < ANCHORS_MAX:
            self.pending.append((index, body["size"], body["root"]))

    def counter(self, index, body, now, window):
        def wrong(what):
            self.find("nv_counter_wrong", f"entry {index} about the counter has a wrong {what}", index)

        def gap(expected):
            self.find("nv_counter_gap", f"entry {index}: the counter is {value}, not {expected}", index)

        op, value = body["op"], body["value"]
        if self.counter_index is None:
            self.counter_index = body["index"]
        if self.counter_index != body["index"]:
            wrong("index")
        certifies = op in ("step", "late")
        if any((member in body) != certifies for member in ("name", "previous", "attest", "sig")):
            wrong("set of members")
        if op == "intent":
            if self.certified is not None and value != self.certified + 1:
                gap(self.certified + 1)
            self.intent = (value, now)
            return
        if op == "capped":
            if self.certified not in (None, value):
                gap(self.certified)
            self.find("nv_counter_capped", f"entry {index}: the counter is not stepped any more", index)
            return
        intent, self.intent = self.intent, None
        if (self.certified is not None or not self.partial) and (intent is None or intent[0] != value):
            wrong("value: no intent has it")
            if self.certified is not None and value != self.certified + 1:
                gap(self.certified + 1)
        if op == "late":
            window("counted_late", self.certified_at or (intent and intent[1]) or now, now)
        if not all(member in body for member in ("name", "attest", "sig")):
            return
        attested = self.attestation(index, body["attest"], body["sig"], previous_of(body),
                                    counter_statement(self.origin, body))
        self.certified, self.certified_at = value, now
        if attested is None:
            return
        if attested.kind != tpm.NV:
            self.find("attestation_malformed", f"entry {index} holds no certification of an index", index)
            return
        name = tpm.counter_name(body["index"])
        named = attested.name == name == body["name"]
        if not named:
            wrong("name")
        valued = attested.offset == 0 and attested.contents == u64(value)
        if not valued:
            wrong("value: the TPM certified another")
        if named and valued:
            self.stepped = True
            if self.first_counter is None:
                self.first_counter = (name, value)

    def is_stepped_for(self, body):
        """Whether the counter was stepped for an epoch that begins now, which names its value."""
        return self.stepped and self.certified is not None and body.get("counter") == self.certified

    def epoch(self, index, body):
        if "attest" in body and "sig_attest" in body:
            counter = u64(body["counter"]) if "counter" in body else b""
            expected = statement(b"affiant/epoch/v1", self.origin.encode(), u64(body["number"]), body["public_key"],
                                 u64(body["first_size"]), body["how"].encode(), counter)
            attested = self.attestation(index, body["attest"], body["sig_attest"], None, expected)
            if attested is not None and attested.kind not in (tpm.QUOTE, tpm.TIME):
                self.find("attestation_malformed", f"entry {index} holds neither a quote nor a time", index)
        if self.certified is not None:
            counted = body.get("counter")
            if counted not in (None, self.certified):
                self.find("epoch_wrong", f"entry {index} begins an epoch with a wrong counter", index)
            elif body["how"] == "orphan" and not self.is_stepped_for(body):
                self.find("epoch_uncounted", f"entry {index} begins an epoch that no step vouches for", index)
        self.stepped = False
        if len(self.epochs) < ANCHORS_MAX:
            self.epochs.append((body["number"], body["first_size"]))

    def settle(self, root_at):
        """Compares the roots that anchors name with the log's: a function of the size, None where it cannot be said."""
        for index, size, root in self.pending:
            seen = root_at(size)
            if seen is not None and seen != root:
                self.find("anchor_mismatch", f"entry {index} names another history of {size} entries", index)
            self.anchored = self.anchored or seen == root
            if seen == root and self.answering and self.answering[0] == index:
                self.answer = self.answering
        self.pending = []

    def challenged(self, tier, trusting):
        """Section 13.7: whether the challenge, if there is one, was answered by a key that is believed."""
        if self.challenge is None:
            return
        if self.answer is None:
            self.find("challenge_unanswered", "no anchor that holds carries the challenge", None)
        elif trusting and not (self.answer[1] in self.trusted or tier > "T0"):
            self.find("challenge_unbelieved", f"entry {self.answer[0]} answers under a key that is not believed", self.answer[0])

    def is_believed(self):
        """Whether the trust file names every attestation key of the log."""
        return all(name in self.trusted for _, name in self.keys)

    def tier(self, known, beginning):
        """The lowest over all keys; `beginning` is how the log begins, as certificates name it."""
        if not self.anchored or not known:
            return "T0"
        beginning = {**beginning, "counter": self.first_counter[0] if self.first_counter else
                     known["counter_name"] if self.partial else None}
        activated = known["live_activated_aks"]
        return min("T3" if name in activated else self.vouched(name, shown, known, beginning)
                   for (_, name), shown in zip(self.keys, self.credentials))

    def compare(self, known):
        if known["ak_names"]:
            for index, name in self.keys:
                if name not in self.trusted:
                    self.find("ak_untrusted", f"entry {index} introduces a key that the trust file does not name", index)
        name, value = self.first_counter or (None, None)
        if not self.partial:
            for what, wanted, seen in (("counter_name", known["counter_name"], name),
                                       ("counter_value", known["counter_value"], value)):
                if wanted is not None and wanted != seen:
                    self.find("counter_untrusted", f"another {what} than the trust file says")
            if known["reset_count"] not in (None, self.first_reset):
                self.find("reset_count_untrusted", f"{self.first_reset} resets, the trust file says otherwise")
        allowed = known["largest_anchor_gap_seconds"]
        if allowed is not None and self.longest is not None and self.longest[0] > allowed * 1_000_000_000:
            self.find("anchor_gap_too_long", f"no anchor for longer than {allowed} s", self.longest[1])
