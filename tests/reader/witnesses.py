"""Policies of witnesses (C2SP tlog-policy) and Ed25519 cosignatures (C2SP tlog-cosignature): docs/FORMAT.md, section 3.1."""

import hashlib

from reader.basics import Refused, decode_base64
from reader.signed import DECIMAL, ed25519_verifies, is_key_name, parse_vkey

POLICY_BYTES_MAX = 256 * 1024
DEFINITIONS_MAX = 64
VKEY_BYTES_MAX = 2560
TIMESTAMP_MAX = 2**63 - 1
ED25519_TYPE, ML_DSA_44_TYPE = 4, 6
KEY_BYTES = {ED25519_TYPE: 32, ML_DSA_44_TYPE: 1312}


class WitnessKey:
    """A verifier key of type 0x04 or 0x06."""

    def __init__(self, vkey):
        parts = vkey.split("+", 2)
        decoded = decode_base64(parts[2].encode()) if len(parts) == 3 and len(vkey.encode()) <= VKEY_BYTES_MAX else None
        if not decoded or KEY_BYTES.get(decoded[0]) != len(decoded) - 1 or not is_key_name(parts[0]):
            raise Refused("not a witness's verifier key")
        self.name, self.kind, self.key = parts[0], decoded[0], decoded[1:]
        self.id = hashlib.sha256(self.name.encode() + b"\n" + decoded).digest()[:4]
        if parts[1] != self.id.hex():
            raise Refused("a verifier key whose id is not its own")

    def cosigned(self, body, signatures):
        """The latest time of this key's cosignatures, or None when there is none; raises Refused if one does not hold,
        and NotImplementedError for an algorithm that this reader does not have."""
        latest = None
        for name, key_id, blob in signatures:
            if (name, key_id) != (self.name, self.id):
                continue
            # As FORMAT.md says: the length and time are judged first, whatever the algorithm.
            time = int.from_bytes(blob[:8], "big")
            if len(blob) < 8 or time > TIMESTAMP_MAX:
                raise Refused("not a cosignature")
            if self.kind != ED25519_TYPE:
                raise NotImplementedError("ML-DSA-44")
            if not ed25519_verifies(self.key, f"cosignature/v1\ntime {time}\n{body}".encode(), blob[8:]):
                raise Refused("a cosignature that does not hold")
            latest = time if latest is None else max(latest, time)
        return latest


class Policy:
    """A tlog-policy; raises Refused for anything else. Names are bytes."""

    def __init__(self, text):
        data = text.encode("utf-8")
        if len(data) > POLICY_BYTES_MAX or not data.endswith(b"\n"):
            raise Refused("a policy is too large, or its last line is not ended")
        self.logs, self.witnesses, self.groups = [], [], []
        self.names, self.members, self.quorums = {}, set(), []
        for line in data[:-1].split(b"\n"):
            if any((byte < 0x20 and byte != 9) or byte == 0x7f for byte in line):
                raise Refused("control character in the policy")
            words = [word for word in line.replace(b"\t", b" ").split(b" ") if word]
            if words and not words[0].startswith(b"#"):
                self.line(words[0], words[1:])
        if len(self.quorums) != 1:
            raise Refused("a policy has exactly one quorum")
        self.quorum = self.quorums[0]

    def line(self, what, words):
        if what == b"log" and len(words) in (1, 2):
            key = parse_vkey(decoded(words[0]))
            self.only_once(self.logs, key, lambda one: one[1])
        elif what == b"witness" and len(words) in (2, 3):
            key = WitnessKey(decoded(words[1]))
            self.define(words[0], ("witness", len(self.witnesses)))
            self.only_once(self.witnesses, key, lambda one: one.key)
        elif what == b"group" and len(words) >= 3:
            members = words[2:]
            threshold = {b"all": str(len(members)), b"any": "1"}.get(words[1]) or decoded(words[1])
            if DECIMAL.fullmatch(threshold) is None or not 1 <= int(threshold) <= len(members):
                raise Refused("not a threshold")
            for member in members:
                if member not in self.names or member in self.members:
                    raise Refused("a member that is not defined, or a member twice")
                self.members.add(member)
            if len(self.groups) == DEFINITIONS_MAX:
                raise Refused("too many groups")
            self.groups.append((int(threshold), [self.names[member] for member in members]))
            self.define(words[0], ("group", len(self.groups) - 1))
        elif what == b"quorum" and len(words) == 1:
            if words[0] != b"none" and words[0] not in self.names:
                raise Refused("a quorum that is not defined")
            self.quorums.append(None if words[0] == b"none" else self.names[words[0]])
        else:
            raise Refused("a line that is not of a policy")

    @staticmethod
    def only_once(known, key, bare):
        if any(bare(one) == bare(key) for one in known) or len(known) == DEFINITIONS_MAX:
            raise Refused("a key twice, or too many keys")
        known.append(key)

    def define(self, name, what):
        if name == b"none" or name in self.names:
            raise Refused("a name that is defined already")
        self.names[name] = what

    def is_met(self, witnesses):
        met = {("witness", at): True for at in witnesses}
        for at, (threshold, members) in enumerate(self.groups):
            met["group", at] = sum(met.get(member, False) for member in members) >= threshold
        return self.quorum is None or met.get(self.quorum, False)


def decoded(word):
    try:
        return word.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Refused("a key that is not text") from error


def stored_path(name):
    return f"witness/{hashlib.sha256(name.encode()).hexdigest()}/checkpoint"
