#!/usr/bin/env python3
"""Independent reader of Affiant's evidence format, version 1.

Written from docs/FORMAT.md with nothing but the Python standard library (3.11 or later), so that the
specification and not one program defines the format. It shares no code with affiant-verify.

    verify.py LOGDIR [--trust FILE] [--strict] [--json]
    verify.py --vectors DIR

Exit codes: 0 everything that the trust file requires is proved; 1 findings; 2 could not check, or nobody says
whose log it should be.

Everything it reads may come from an adversary. Nesting is bounded by the format and not by the input, each file
has a size limit, only regular files are opened, and whatever cannot be read becomes a finding.
"""

import base64
import binascii
import bisect
import hashlib
import json
import os
import re
import stat
import sys
import tomllib

# ----------------------------------------------------------------------------------------------------------
# Entries: the strict JSON profile
# ----------------------------------------------------------------------------------------------------------

ENTRY_BYTES_MAX = 65_535
U32_MAX = 2**32 - 1
U53_MAX = 2**53 - 1
U64_MAX = 2**64 - 1

# name: (shape, members). A member is `key=form`, with `?` when it may be absent; `[]` before a form is a list.
FORMS = {
    "predecessor": ("object",
        "origin=text size=u53 root=b64:32"),
    "hook": ("object",
        "event=text hook=text program=text tag=text id=u32 link?=u32"),
    "not_covered": ("object",
        "what=text why=text"),
    "cadence": ("object",
        "commit_ms=u32 seal_ms=u32 heartbeat_ms=u32"),
    "counter": ("row",
        "cpu=u32 class=class next=u64 dropped=u64 settled=u64"),
    "session_state": ("row",
        "session=u53 number=u53 hash=b64:32"),
    "number_range": ("row",
        "cpu=u32 class=class first=u64 last=u64"),
    "loss_share": ("row",
        "scope=u64 count=u64"),
    "scope_root": ("object",
        "cgroup?=u64 path=text classes=u32"),
    "requester": ("object",
        "process?=u64 tgid=u32 uid=u32 gid=u32"),
    "issued_claims": ("object",
        "task?=text labels=[]label"),
    "comm_claims": ("object",
        "comm=text"),
    "exec_claims": ("object",
        "comm=text invoked?=text"),
    "open_claims": ("object",
        "comm=text asked?=text dir_fd?=u32"),
    "device": ("row",
        "major=u32 minor=u32"),
    "key_tier": ("words",
        "T0 T1 T2 T3"),
    "succession": ("words",
        "first continued orphan"),
    "gap_cause": ("words",
        "ring_full decode unexplained not_observed"),
    "recovery_cause": ("words",
        "clean crash"),
    "disarm_cause": ("words",
        "operator upgrade host_stop fault"),
    "secure_boot": ("words",
        "on off unknown"),
    "workload_kind": ("words",
        "kubernetes container systemd session host unknown"),
    "revoke_cause": ("words",
        "exit expiry operator host_stop"),
    "transport": ("words",
        "tcp udp icmp icmp6 sctp mptcp other"),
    "cgroup_op": ("words",
        "create remove move"),
    "marks": ("set",
        "no_strings io_worker deferred path_partial path_detached path_unlinked path_unreadable "
        "cwd_unsure argv_truncated argv_unread claim_truncated claim_unread by_thread racy unresolved "
        "differs created oflags_claimed result_not_observed done_follows untracked whole_process memfd"),
}

KINDS = {
    "genesis": (True,
        "format=u32 origin=text log_key=text key_tier=key_tier boot_id=text kernel=text machine?=hex:32 "
        "predecessor?=predecessor"),
    "epoch": (True,
        "number=u53 public_key=b64:32 first_size=u53 how=succession sig_log=b64:64 sig_previous?=b64:64"),
    "armed": (True,
        "run=hex:16 boot_id=text capture_id=hex:16 resumed=bool agent_version=text agent_digest=hex:32 "
        "object_digest=hex:32 offsets_digest=hex:32 config_digest=hex:32 kernel=text lockdown=text "
        "secure_boot=secure_boot hook_tier=text key_tier=key_tier cadence=cadence hooks=[]hook "
        "not_covered=[]not_covered scope=text"),
    "heartbeat": (True,
        "capture_id=hex:16 counters=[]counter sessions=[]session_state hooks_ok=bool hooks_digest=hex:32"),
    "disarmed": (True,
        "cause=disarm_cause capture_id=hex:16 counters=[]counter sessions=[]session_state"),
    "gap": (True,
        "cause=gap_cause capture_id=hex:16 ranges=[]number_range count=u64 shares=[]loss_share from?=u64 "
        "to?=u64"),
    "recovered": (True,
        "cause=recovery_cause size=u53 replayed=u64 torn_bytes=u64"),
    "scope": (True,
        "text=text host_classes=u32 roots=[]scope_root"),
    "unknown": (True,
        "cgroup=u64 path?=text reason=text"),
    "identified": (True,
        "of=u53 workload=u53"),
    "workload": (False,
        "sort=workload_kind id=text cgroup=u64 path=text how=text labels=[]label"),
    "process": (False,
        "tgid=u32 start=u64 parent?=u64 cgroup=u64 path?=text uid=u32 gid=u32 euid=u32 egid=u32 how=text "
        "claims=comm_claims"),
    "issued": (False,
        "id=text identity=text cgroup=u64 uid=u32 gid=u32 ttl?=u64 by=requester claims=issued_claims"),
    "revoked": (False,
        "id=text cause=revoke_cause code?=u32 signal?=u32 acts=[]kind_count entries=u64 hash=b64:32"),
    "fork": (False,
        "child=u64 child_tgid=u32 child_start=u64 child_cgroup?=u64 tgid=u32 uid=u32 marks?=marks "
        "claims=comm_claims"),
    "exec": (False,
        "path?=text argv=[]text argc=u32 cwd?=text tgid=u32 parent=u64 uid=u32 gid=u32 euid=u32 egid=u32 "
        "suid=u32 sgid=u32 login_uid?=u32 caps=hex:8 ino=u64 dev=device nlink=u32 mode=u32 size=u64 "
        "marks?=marks claims=exec_claims"),
    "exit": (False,
        "tgid=u32 code?=u32 signal?=u32 uid=u32 marks?=marks claims=comm_claims"),
    "connect": (False,
        "proto=transport local?=address remote=address errno?=u32 socket=u64 tgid=u32 uid=u32 euid?=u32 "
        "marks?=marks claims=comm_claims"),
    "connect_done": (False,
        "proto=transport local?=address remote=address errno?=u32 socket=u64 tgid=u32 uid=u32 "
        "marks?=marks claims=comm_claims"),
    "open": (False,
        "path?=text oflags=u32 fd?=u32 errno?=u32 ino?=u64 dev?=device mode?=u32 nlink?=u32 tgid=u32 "
        "uid=u32 euid?=u32 marks?=marks claims=open_claims"),
    "cgroup": (False,
        "op=cgroup_op id=u64 path?=text parent?=u64 moved?=u64 moved_tgid?=u32 scope_before?=u64 "
        "scope_after?=u64 tgid=u32 uid=u32 marks?=marks claims=comm_claims"),
}

# Forms of a common member, in order, between `kind` and `body`.
COMMON = ("wall=u64 boot=u64 q?=kernel_number p?=u64 w?=u53 s?=u53 n?=u53 c?=u53 prev=b64:32 rnd=b64:16")


class Refused(Exception):
    """Bytes that are not what the format allows."""


NUMBER = re.compile(rb"0|[1-9][0-9]{0,19}")
PLAIN_ASCII = re.compile(rb'"([\x20\x21\x23-\x5b\x5d-\x7e]*)"')
STRING = re.compile(rb'"([^"\\]*(?:\\["\\][^"\\]*)*)"')
ESCAPE = re.compile(rb'\\(["\\])')
CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")
HEX = re.compile(rb"[0-9a-f]*")
IPV4 = re.compile(r"(0|[1-9][0-9]{0,2})\.(0|[1-9][0-9]{0,2})\.(0|[1-9][0-9]{0,2})\.(0|[1-9][0-9]{0,2})")
HEXTET = re.compile(r"0|[1-9a-f][0-9a-f]{0,3}")
PORT = re.compile(r"0|[1-9][0-9]{0,4}")


def is_plain(data):
    """Whether a byte string must be written as a JSON string: UTF-8 without control characters."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return CONTROL.search(text) is None


def expect(data, at, literal):
    if not data.startswith(literal, at):
        raise Refused(f"byte {at}: expected {literal.decode()}")
    return at + len(literal)


def number(limit):
    def read(data, at):
        match = NUMBER.match(data, at)
        if match is None:
            raise Refused(f"byte {at}: expected a number")
        value = int(match[0])
        if value > limit:
            raise Refused(f"byte {at}: number above {limit}")
        # A digit that follows belongs to a number that is too long or has a leading zero.
        if data[match.end():match.end() + 1].isdigit():
            raise Refused(f"byte {at}: number too long, or with a leading zero")
        return value, match.end()
    return read


def quoted_number(data, at):
    value, at = number(U64_MAX)(data, expect(data, at, b'"'))
    return value, expect(data, at, b'"')


def boolean(data, at):
    for literal, value in ((b"true", True), (b"false", False)):
        if data.startswith(literal, at):
            return value, at + len(literal)
    raise Refused(f"byte {at}: expected true or false")


def bare(data, at):
    match = PLAIN_ASCII.match(data, at)
    if match is None:
        raise Refused(f"byte {at}: expected a string without escapes")
    return match[1], match.end()


def decode_base64(encoded):
    """RFC 4648 section 4: padding required, unused bits zero, nothing but the alphabet."""
    try:
        decoded = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        return None
    return decoded if base64.b64encode(decoded) == encoded else None


def fixed_base64(size):
    def read(data, at):
        encoded, end = bare(data, at)
        decoded = decode_base64(encoded)
        if decoded is None or len(decoded) != size:
            raise Refused(f"byte {at}: expected base64 of {size} bytes")
        return decoded, end
    return read


def fixed_hex(size):
    def read(data, at):
        digits, end = bare(data, at)
        if len(digits) != 2 * size or not HEX.fullmatch(digits):
            raise Refused(f"byte {at}: expected {2 * size} lower-case hexadecimal digits")
        return digits.decode(), end
    return read


def text(data, at):
    """A byte string, as bytes."""
    if data.startswith(b'{"b64":', at):
        encoded, end = bare(data, at + 7)
        decoded = decode_base64(encoded)
        if decoded is None:
            raise Refused(f"byte {at}: expected base64")
        if is_plain(decoded):
            raise Refused(f"byte {at}: plain text written as base64")
        return decoded, expect(data, end, b"}")
    match = STRING.match(data, at)
    if match is None:
        raise Refused(f"byte {at}: expected a text")
    if not is_plain(match[1]):
        raise Refused(f"byte {at}: not UTF-8 without control characters")
    return ESCAPE.sub(rb"\1", match[1]), match.end()


def word(words):
    known = {w.encode(): w for w in words}

    def read(data, at):
        seen, end = bare(data, at)
        if seen not in known:
            raise Refused(f"byte {at}: unknown word")
        return known[seen], end
    return read


def word_set(words):
    order = {w.encode(): n for n, w in enumerate(words)}

    def read(data, at):
        at = expect(data, at, b"[")
        last, seen = -1, []
        while True:
            found, end = bare(data, at)
            if order.get(found, -1) <= last:
                raise Refused(f"byte {at}: unknown word, or words out of order")
            last = order[found]
            seen.append(words[last])
            if data.startswith(b"]", end):
                return seen, end + 1
            at = expect(data, end, b",")
    return read


def listed(form):
    def read(data, at):
        at = expect(data, at, b"[")
        if data.startswith(b"]", at):
            return [], at + 1
        items = []
        while True:
            item, at = form(data, at)
            items.append(item)
            if data.startswith(b"]", at):
                return items, at + 1
            at = expect(data, at, b",")
    return read


def row(forms):
    def read(data, at):
        values, separator = [], b"["
        for form in forms:
            value, at = form(data, expect(data, at, separator))
            values.append(value)
            separator = b","
        return values, expect(data, at, b"]")
    return read


def record(members):
    def read(data, at):
        at = expect(data, at, b"{")
        first, values = at, {}
        for key, quoted, optional, form in members:
            comma = at if at == first else at + 1
            if (comma == at or data.startswith(b",", at)) and data.startswith(quoted, comma):
                values[key], at = form(data, comma + len(quoted))
            elif not optional:
                raise Refused(f"byte {at}: expected member {key}")
        return values, expect(data, at, b"}")
    return read


def address(data, at):
    """`a.b.c.d:port`, or `[IPv6 in the form of RFC 5952]:port`."""
    raw, end = bare(data, at)
    host, colon, port = raw.decode("ascii").rpartition(":")
    good = bool(colon) and PORT.fullmatch(port) is not None and int(port) <= 65_535
    if good and host.startswith("[") and host.endswith("]"):
        good = is_canonical_ipv6(host[1:-1])
    elif good:
        good = ipv4_bytes(host) is not None
    if not good:
        raise Refused(f"byte {at}: expected an address and port")
    return raw.decode("ascii"), end


def ipv4_bytes(host):
    match = IPV4.fullmatch(host)
    octets = [int(octet) for octet in match.groups()] if match else [256]
    return octets if max(octets) <= 255 else None


def is_canonical_ipv6(host):
    groups = ipv6_groups(host)
    return groups is not None and ipv6_text(groups) == host


def ipv6_groups(host):
    """The eight 16-bit groups of an address, or None. Lenient: the caller compares with the one spelling."""
    if host.startswith("::ffff:") and "." in host:
        octets = ipv4_bytes(host[7:])
        if octets is None:
            return None
        return [0] * 5 + [0xFFFF, octets[0] << 8 | octets[1], octets[2] << 8 | octets[3]]
    left, gap, right = host.partition("::")
    halves = [half.split(":") if half else [] for half in (left, right)]
    if not all(HEXTET.fullmatch(group) for half in halves for group in half):
        return None
    missing = 8 - len(halves[0]) - len(halves[1])
    if missing < 0 or (not gap and missing != 0):
        return None
    return [int(g, 16) for g in halves[0]] + [0] * missing + [int(g, 16) for g in halves[1]]


def ipv6_text(groups):
    """RFC 5952, with the dotted form for IPv4-mapped addresses (::ffff:0:0/96) only."""
    if groups[:6] == [0, 0, 0, 0, 0, 0xFFFF]:
        return "::ffff:" + ".".join(str(part) for group in groups[6:] for part in (group >> 8, group & 255))
    best, start = (0, 0), 0
    while start < 8:
        run = 0
        while start + run < 8 and groups[start + run] == 0:
            run += 1
        if run >= 2 and run > best[1]:
            best = (start, run)
        start += max(run, 1)
    spelled = [f"{group:x}" for group in groups]
    if best[1] == 0:
        return ":".join(spelled)
    return ":".join(spelled[:best[0]]) + "::" + ":".join(spelled[best[0] + best[1]:])


def compile_forms():
    forms = {
        "u32": number(U32_MAX), "u53": number(U53_MAX), "u64": quoted_number, "class": number(3),
        "bool": boolean, "text": text, "address": address, "kind": word(KINDS),
    }

    def form(name):
        if name.startswith("[]"):
            return listed(form(name[2:]))
        if name not in forms:
            base, _, size = name.partition(":")
            forms[name] = {"b64": fixed_base64, "hex": fixed_hex}[base](int(size))
        return forms[name]

    def members(line):
        for member in line.split():
            key, _, name = member.partition("=")
            optional = key.endswith("?")
            key = key.rstrip("?")
            yield key, b'"' + key.encode() + b'":', optional, form(name)

    forms["label"] = row([text, text])
    forms["kind_count"] = row([forms["kind"], quoted_number])
    forms["kernel_number"] = row([forms["u32"], forms["class"], quoted_number])
    for name, (shape, line) in FORMS.items():
        if shape == "object":
            forms[name] = record(list(members(line)))
        elif shape == "row":
            forms[name] = row([m[3] for m in members(line)])
        else:
            forms[name] = {"words": word, "set": word_set}[shape](line.split())
    bodies = {kind: record(list(members(line))) for kind, (_, line) in KINDS.items()}
    return forms, list(members(COMMON)), bodies


FORM, COMMON_MEMBERS, BODY = compile_forms()


def decode(data):
    """One entry as a dictionary; raises Refused for anything but the one permitted text."""
    if len(data) > ENTRY_BYTES_MAX:
        raise Refused("longer than an entry may be")
    at = expect(data, 0, b'{"v":')
    version, at = FORM["u32"](data, at)
    if version != 1:
        raise Refused(f"version {version}, this reader knows version 1")
    entry = {"v": 1}
    entry["i"], at = FORM["u53"](data, expect(data, at, b',"i":'))
    entry["kind"], at = FORM["kind"](data, expect(data, at, b',"kind":'))
    for key, quoted, optional, form in COMMON_MEMBERS:
        if data.startswith(b"," + quoted, at):
            entry[key], at = form(data, at + 1 + len(quoted))
        elif not optional:
            raise Refused(f"byte {at}: expected member {key}")
    entry["body"], at = BODY[entry["kind"]](data, expect(data, at, b',"body":'))
    if data.startswith(b',"cut":', at):
        entry["cut"], at = listed(text)(data, at + 7)
        if not entry["cut"]:
            raise Refused("an empty list of cut members")
    at = expect(data, at, b"}")
    if at != len(data):
        raise Refused(f"byte {at}: bytes after the end")
    if entry["kind"] == "issued" and entry.get("s") != entry["i"]:
        raise Refused("an issued entry whose session is not itself")
    return entry


# ----------------------------------------------------------------------------------------------------------
# Ed25519, RFC 8032 section 5.1, strict
# ----------------------------------------------------------------------------------------------------------

P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, P - 2, P) % P
SQRT_M1 = pow(2, (P - 1) // 4, P)
# Points are in extended coordinates (X, Y, Z, T): x = X/Z, y = Y/Z, xy = T/Z.
NEUTRAL = (0, 1, 1, 0)


def add(a, b):
    """RFC 8032, section 5.1.4; complete, so it also doubles."""
    e = (a[1] - a[0]) * (b[1] - b[0]) % P
    f = (a[1] + a[0]) * (b[1] + b[0]) % P
    c = 2 * a[3] * b[3] * D % P
    d = 2 * a[2] * b[2] % P
    e, f, g, h = f - e, d - c, d + c, f + e
    return (e * f % P, g * h % P, f * g % P, e * h % P)


def multiply(scalar, point):
    total = NEUTRAL
    while scalar > 0:
        if scalar & 1:
            total = add(total, point)
        point = add(point, point)
        scalar >>= 1
    return total


def equal(a, b):
    return (a[0] * b[2] - b[0] * a[2]) % P == 0 and (a[1] * b[2] - b[1] * a[2]) % P == 0


def decompress(encoded):
    """RFC 8032, section 5.1.3: the point, or None."""
    y = int.from_bytes(encoded, "little")
    sign, y = y >> 255, y & (2**255 - 1)
    if y >= P:
        return None
    u, v = (y * y - 1) % P, (D * y * y + 1) % P
    x = u * pow(v, 3, P) * pow(u * pow(v, 7, P), (P - 5) // 8, P) % P
    if (v * x * x + u) % P == 0:
        x = x * SQRT_M1 % P
    if (v * x * x - u) % P != 0 or (x == 0 and sign == 1):
        return None
    if x & 1 != sign:
        x = P - x
    return (x, y, 1, x * y % P)


BASE = decompress((4 * pow(5, P - 2, P) % P).to_bytes(32, "little"))


def is_small_order(point):
    return equal(multiply(8, point), NEUTRAL)


def ed25519_verifies(key, message, signature):
    """Refuses a scalar that is not reduced, and a key or point R of small order."""
    if len(key) != 32 or len(signature) != 64:
        return False
    a, r = decompress(key), decompress(signature[:32])
    s = int.from_bytes(signature[32:], "little")
    if a is None or r is None or s >= L or is_small_order(a) or is_small_order(r):
        return False
    k = int.from_bytes(hashlib.sha512(signature[:32] + key + message).digest(), "little") % L
    return equal(multiply(s, BASE), add(r, multiply(k, a)))


# ----------------------------------------------------------------------------------------------------------
# Signed notes and checkpoints
# ----------------------------------------------------------------------------------------------------------

NOTE_BYTES_MAX = 64 * 1024
SIGNATURES_MAX = 64
NAME_BYTES_MAX = 255
ED25519_TYPE = b"\x01"
# White space of Unicode (property White_Space), and the control characters (category Cc).
NOT_IN_NAME = re.compile("[\x00-\x20\x7f-\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000+]")
DECIMAL = re.compile(r"0|[1-9][0-9]{0,19}")


def is_key_name(name):
    return 0 < len(name.encode("utf-8")) <= NAME_BYTES_MAX and NOT_IN_NAME.search(name) is None


def key_id(name, key):
    return hashlib.sha256(name.encode() + b"\n" + ED25519_TYPE + key).digest()[:4]


def parse_vkey(vkey):
    """`name+hex8(key id)+base64(0x01 || key)` as (name, key)."""
    parts = vkey.split("+", 2)
    decoded = decode_base64(parts[2].encode()) if len(parts) == 3 else None
    if decoded is None or len(decoded) != 33 or decoded[:1] != ED25519_TYPE or not is_key_name(parts[0]):
        raise Refused("not an Ed25519 verifier key")
    if parts[1] != key_id(parts[0], decoded[1:]).hex():
        raise Refused("a verifier key whose id is not its own")
    return parts[0], decoded[1:]


def parse_note(data):
    """(text, [(name, key id, signature)])"""
    if len(data) > NOTE_BYTES_MAX:
        raise Refused("note too large")
    try:
        whole = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Refused("note is not UTF-8") from error
    if re.search("[\x00-\x09\x0b-\x1f]", whole):
        raise Refused("control character in the note")
    # The last empty line separates text and signatures.
    at = whole.rfind("\n\n")
    if at < 0:
        raise Refused("no empty line in the note")
    body, tail = whole[:at + 1], whole[at + 2:]
    if not tail.endswith("\n"):
        raise Refused("no signature, or an unfinished signature line")
    lines = tail[:-1].split("\n")
    if len(lines) > SIGNATURES_MAX:
        raise Refused("too many signatures")
    signatures = []
    for line in lines:
        dash, _, rest = line.partition(" ")
        name, _, blob = rest.partition(" ")
        decoded = decode_base64(blob.encode("utf-8"))
        if dash != "\u2014" or not is_key_name(name) or decoded is None or len(decoded) < 5:
            raise Refused("malformed signature line")
        signatures.append((name, decoded[:4], decoded[4:]))
    return body, signatures


def parse_checkpoint_text(body):
    """(origin, size, root)"""
    lines = body.split("\n")
    if len(lines) != 4 or lines[3] != "" or not is_key_name(lines[0]):
        raise Refused("a checkpoint is origin, size and root hash, each on a line")
    if DECIMAL.fullmatch(lines[1]) is None or int(lines[1]) > U64_MAX:
        raise Refused("tree size is not a decimal number")
    root = decode_base64(lines[2].encode("utf-8"))
    if root is None or len(root) != 32:
        raise Refused("root hash is not base64 of 32 bytes")
    return lines[0], int(lines[1]), root


def signed_by(body, signatures, name, key):
    """True or False; None when a line of this key is there and does not hold."""
    mine = [s for n, i, s in signatures if n == name and i == key_id(name, key)]
    if not all(ed25519_verifies(key, body.encode("utf-8"), s) for s in mine):
        return None
    return bool(mine)


# ----------------------------------------------------------------------------------------------------------
# Files, tiles and the tree
# ----------------------------------------------------------------------------------------------------------

TILE_WIDTH = 256
BUNDLE_BYTES_MAX = TILE_WIDTH * (2 + ENTRY_BYTES_MAX)
TRUST_BYTES_MAX = 4 << 20
EXPECTED_BYTES_MAX = 1 << 20


class CannotCheck(Exception):
    """Nothing can be said of the log: exit code 2."""


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


def tile_path(level, tile, width):
    """`level` is a number, or `entries`."""
    groups = [f"{tile % 1000:03}"]
    while tile >= 1000:
        tile //= 1000
        groups.append(f"x{tile % 1000:03}")
    partial = f".p/{width}" if width < TILE_WIDTH else ""
    return f"tile/{level}/" + "/".join(reversed(groups)) + partial


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
        self.size = 0
        self.peaks = []  # (height, hash) of complete subtrees, largest first
        self.tiles = []  # per tile level: the hashes of the tile being filled

    def append(self, leaf):
        """Adds a leaf; yields (level, number, hashes) of each tile that this fills."""
        self.size += 1
        height, top = 0, leaf
        self.edge(0, leaf)
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
                 "reference_wrong",
    "authenticity": "checkpoint_unsigned checkpoint_forged epoch_missing epoch_forged origin_untrusted "
                    "log_key_untrusted tier_too_low",
    "continuity": "genesis_missing genesis_repeated genesis_wrong epoch_wrong genesis_untrusted first_epoch_untrusted "
                  "log_truncated head_mismatch",
    "non_equivocation": "equivocation",
    "coverage": "kernel_number_wrong number_repeated number_hole counter_wrong gap_count_wrong loss_unexplained "
                "loss_accounted event_outside_run hooks_not_attached",
    "sessions": "session_unknown session_number_wrong session_ended session_hash_wrong revoked_wrong",
    None: "claim_not_proved",
}
BREAKS = {name: claim for claim, names in FINDINGS.items() for name in names.split()}
KEPT_MAX = 1_000
# What is kept in memory is bounded; a log with more is not checked. FORMAT.md section 13 permits limits like these.
SESSIONS_MAX = 1_000_000
REFERENCES_MAX = 4_000_000
CLASS_NAMES = ("process", "cgroup", "network", "file")
CLASS_OF = {"fork": 0, "exec": 0, "exit": 0, "cgroup": 1, "connect": 2, "connect_done": 2, "open": 3}


class Outcome:
    """Findings and notes so far; the first thousand of each are kept, all are counted."""

    def __init__(self):
        self.findings, self.notes = [], []
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


class Session:
    def __init__(self, ident, leaf):
        self.ident, self.next, self.ended = ident, 1, False
        self.hash = hashlib.sha256(b"affiant/session/v1" + leaf).digest()
        self.counts = {}  # entries made from kernel events, by kind


class Audit:
    """FORMAT.md sections 13.2 and 13.3, one entry after the other."""

    def __init__(self, origin, strict, out):
        self.origin, self.strict, self.out = origin, strict, out
        self.sighted, self.overflowed = True, False
        self.shift = 0  # by how much the last entry's `i` was off
        self.log_key = self.first_epoch_key = self.epoch = None
        self.control_next = 0
        self.sessions, self.workloads, self.unknowns = {}, set(), set()
        self.counters, self.runs_kept = {}, 0
        self.cut_off = set()  # captures whose last run was followed by another without `disarmed`
        self.capture = None  # of the armed run
        self.handed_over = None  # of the last run, if it was disarmed for an upgrade
        self.runs = 0

    def entry(self, index, data, leaf, previous):
        try:
            entry = decode(data)
        except Refused as why:
            self.out.find("entry_malformed", f"entry {index} is not in the permitted form: {why}", index)
            self.sighted = False
            return
        body, kind = entry["body"], entry["kind"]
        own = entry["i"]
        # Behind one removed or added entry, all others go on counting: that is one finding.
        if own - index not in (0, self.shift):
            self.out.find("index_wrong", f"entry {index} says that it is entry {own}", index)
        self.shift = own - index
        if previous is not None and entry["prev"] != previous:
            self.out.find("previous_mismatch", f"entry {index} does not follow the entry before it", index)
        if index == 0 and kind != "genesis":
            self.out.find("genesis_missing", "entry 0 is not a genesis")
        if kind == "genesis":
            self.genesis(index, body)
        elif kind == "epoch":
            self.epoch_entry(index, own, body)
        if self.sighted:
            self.control_chain(index, entry)
            self.session_chain(index, entry, leaf)
            self.kernel_number(index, entry)
            self.references(index, entry)
            handler = getattr(self, "on_" + kind, None)
            if handler is not None:
                handler(index, entry)

    def genesis(self, index, body):
        if index != 0:
            self.out.find("genesis_repeated", f"entry {index} is a second genesis", index)
            return
        if body["format"] != 1:
            self.out.find("genesis_wrong", "the genesis names another format")
        if body["origin"] != self.origin.encode():
            self.out.find("genesis_wrong", "the genesis names another origin than the checkpoint")
        try:
            name, key = parse_vkey(body["log_key"].decode("utf-8"))
        except (Refused, UnicodeDecodeError):
            name, key = None, None
        if name == self.origin:
            self.log_key = (name, key)
        else:
            self.out.find("genesis_wrong", "the genesis does not name a key of this log")
        self.tier_claimed(body)
        if "predecessor" in body:
            self.out.note("predecessor", "this log continues another, which must be verified by itself")

    def tier_claimed(self, body):
        if body["key_tier"] != "T0" and not any(name == "tier_claimed" for name, _ in self.out.notes):
            self.out.note("tier_claimed", f"the log claims tier {body['key_tier']} without evidence: judged as T0")

    def epoch_entry(self, index, own, body):
        number, how = body["number"], body["how"]
        is_first = self.first_epoch_key is None

        def wrong(what):
            self.out.find("epoch_wrong", f"entry {index} begins an epoch with a wrong {what}", index)

        if self.sighted and number != (0 if self.epoch is None else self.epoch[0] + 1):
            wrong("number")
        if body["first_size"] != own + 1:
            wrong("first size")
        if (self.sighted and (how == "first") != is_first) or (how == "continued") != ("sig_previous" in body):
            wrong("succession")
        fields = (self.origin.encode(), number.to_bytes(8, "big"), body["public_key"],
                  body["first_size"].to_bytes(8, "big"), how.encode())
        joined = b"".join(len(field).to_bytes(4, "big") + field for field in fields)
        statement = hashlib.sha256(b"affiant/epoch/v1" + joined).digest()
        if self.log_key is not None and not ed25519_verifies(self.log_key[1], statement, body["sig_log"]):
            self.out.find("epoch_forged", f"entry {index}: the log key's signature does not hold", index)
        if "sig_previous" in body and self.epoch is not None and self.sighted:
            if not ed25519_verifies(self.epoch[1], statement, body["sig_previous"]):
                self.out.find("epoch_forged", f"entry {index}: the previous epoch's signature does not hold", index)
        if how == "orphan":
            self.out.note("orphan_epoch", f"entry {index} begins an epoch that only the log key vouches for")
        if is_first and self.sighted:
            self.first_epoch_key = body["public_key"]
        self.epoch = (number, body["public_key"])

    def control_chain(self, index, entry):
        expected = self.control_next if KINDS[entry["kind"]][0] else None
        seen = entry.get("c")
        if seen != expected:
            self.out.find("control_number_wrong", f"entry {index} has control number {seen}, expected {expected}", index)
        if seen is not None or expected is not None:
            self.control_next = (expected if seen is None else seen) + 1

    def session_chain(self, index, entry, leaf):
        seen, named, kind, body = entry.get("n"), entry.get("s"), entry["kind"], entry["body"]
        if kind == "issued":
            if seen != 0:
                self.out.find("session_number_wrong", f"entry {index} issues a session and has number {seen}", index)
            self.sessions[entry["i"]] = Session(body["id"], leaf)
            if len(self.sessions) > SESSIONS_MAX:
                raise CannotCheck(f"more than {SESSIONS_MAX} sessions")
            return
        if named is None:
            if seen is not None:
                self.out.find("session_number_wrong", f"entry {index} has a number and no session", index)
            if kind == "revoked":
                self.out.find("revoked_wrong", f"entry {index} ends no session", index)
            return
        session = self.sessions.get(named)
        if session is None:
            self.out.find("session_unknown", f"entry {index} is of session {named}, which was not issued", index)
            return
        if session.ended:
            self.out.find("session_ended", f"entry {index} is of session {named}, which had ended", index)
        if seen != session.next:
            self.out.find("session_number_wrong", f"entry {index} has number {seen}, expected {session.next}", index)
        if kind == "revoked":
            self.revoked(index, named, session, body)
        session.next = (session.next if seen is None else seen) + 1
        session.hash = hashlib.sha256(session.hash + leaf).digest()
        if kind in CLASS_OF:
            session.counts[kind] = session.counts.get(kind, 0) + 1

    def revoked(self, index, named, session, body):
        if body["id"] != session.ident:
            self.out.find("revoked_wrong", f"entry {index} ends session {named} under another id", index)
        if body["entries"] != session.next:
            self.out.find("revoked_wrong", f"entry {index} counts {body['entries']} entries, expected {session.next}", index)
        if dict(body["acts"]) != session.counts or len(body["acts"]) != len(session.counts):
            self.out.find("revoked_wrong", f"entry {index} counts the kinds of its session wrongly", index)
        if body["hash"] != session.hash:
            self.out.find("session_hash_wrong", f"entry {index} ends session {named} with another running hash", index)
        session.ended = True

    def kernel_number(self, index, entry):
        wanted = CLASS_OF.get(entry["kind"])
        cpu, number_class, seq = entry.get("q", (None, None, None))
        if number_class != wanted:
            self.out.find("kernel_number_wrong", f"entry {index} has no kernel number of its class, or may have none", index)
        elif wanted is not None and self.capture is None:
            self.out.find("event_outside_run", f"entry {index} is a kernel event outside any run", index)
        elif wanted is not None:
            self.account(index, (self.capture, cpu, number_class), seq, seq)

    def counter(self, key):
        if key not in self.counters:
            if len(self.counters) >= COUNTERS_MAX:
                self.overflowed = True
                return None
            self.counters[key] = Counter()
        return self.counters[key]

    def account(self, index, key, first, last):
        counter = self.counter(key)
        if counter is None:
            return
        kept = len(counter.firsts)
        accounted = counter.account(first, last)
        self.runs_kept += len(counter.firsts) - kept
        if not accounted:
            self.out.find("number_repeated", f"entry {index} accounts again for {first} to {last} of "
                                             f"{CLASS_NAMES[key[2]]} on processor {key[1]}", index)
        if counter.firsts and (len(counter.firsts) > RUNS_MAX or self.runs_kept > RUNS_TOTAL_MAX):
            self.holes(index, key, counter, counter.top())

    def holes(self, index, key, counter, limit):
        kept = len(counter.firsts)
        for first, last in counter.take_holes(limit):
            self.out.find("number_hole", f"entry {index}: {first} to {last} of {CLASS_NAMES[key[2]]} on processor "
                                         f"{key[1]} are neither in the log nor declared lost", index)
        self.runs_kept += len(counter.firsts) - kept

    def references(self, index, entry):
        wanted = [(entry["w"], self.workloads)] if "w" in entry else []
        if entry["kind"] == "identified":
            wanted += [(entry["body"]["of"], self.unknowns), (entry["body"]["workload"], self.workloads)]
        for to, known in wanted:
            if to not in known:
                self.out.find("reference_wrong", f"entry {index} refers to entry {to}, which is not what it must be", index)

    def on_workload(self, _, entry):
        self.workloads.add(entry["i"])
        self.bound_references()

    def on_unknown(self, _, entry):
        self.unknowns.add(entry["i"])
        self.bound_references()

    def bound_references(self):
        if len(self.workloads) + len(self.unknowns) > REFERENCES_MAX:
            raise CannotCheck(f"more than {REFERENCES_MAX} workloads and unknown acts")

    def on_armed(self, index, entry):
        body = entry["body"]
        self.runs += 1
        self.tier_claimed(body)
        if self.capture is not None:
            self.cut_off.add(self.capture)
        self.cut_off.discard(body["capture_id"])
        if self.capture is not None and not (body["resumed"] and body["capture_id"] == self.capture):
            self.out.note("run_cut", f"the run before entry {index} stopped without a word")
        self.capture, self.handed_over = body["capture_id"], None

    def on_heartbeat(self, index, entry):
        body = entry["body"]
        self.stated(index, body)
        if not body["hooks_ok"]:
            self.out.find("hooks_not_attached", f"entry {index} did not find the hooks attached", index)

    def on_disarmed(self, index, entry):
        body = entry["body"]
        self.stated(index, body)
        self.capture = None
        # A newer agent takes over what the rings still hold.
        self.handed_over = body["capture_id"] if body["cause"] == "upgrade" else None

    def stated(self, index, body):
        if body["capture_id"] != self.capture:
            self.out.find("event_outside_run", f"entry {index} states counters of a capture that is not armed", index)
        else:
            for cpu, number_class, following, _, settled in body["counters"]:
                key = (self.capture, cpu, number_class)
                counter = self.counter(key)
                if counter is None:
                    continue
                if following < counter.next or settled > following:
                    self.out.find("counter_wrong", f"entry {index} states a counter that went back or settled too far", index)
                    continue
                counter.next = following
                self.holes(index, key, counter, settled)
        for named, last, running in body["sessions"]:
            session = self.sessions.get(named)
            if session is None:
                self.out.find("session_unknown", f"entry {index} states session {named}, which was not issued", index)
            elif session.ended or session.next != last + 1 or session.hash != running:
                self.out.find("session_hash_wrong", f"entry {index} states session {named} otherwise than its entries", index)

    def on_gap(self, index, entry):
        body = entry["body"]
        total, valid = 0, True
        for cpu, number_class, first, last in body["ranges"]:
            if last < first:
                valid = False
                continue
            total += last - first + 1
            self.account(index, (body["capture_id"], cpu, number_class), first, last)
        if not valid or total != body["count"]:
            self.out.find("gap_count_wrong", f"entry {index} counts {body['count']} lost events, its ranges {total}", index)
        text = f"entry {index}: {body['count']} events lost, cause {body['cause']}"
        if body["cause"] == "unexplained":
            self.out.find("loss_unexplained", text, index)
        elif self.strict:
            self.out.find("loss_accounted", text, index)
        self.out.note("gap", text)

    def on_recovered(self, index, entry):
        body = entry["body"]
        if body["cause"] == "crash":
            self.out.note("recovered", f"entry {index}: the log was recovered after a crash")

    def finish(self, size):
        if size == 0:
            self.out.find("genesis_missing", "the log is empty")
        if not self.sighted:
            return
        if self.capture is not None:
            self.out.note("open_end", "the log ends within a run")
        in_flight = 0
        for key, counter in sorted(self.counters.items()):
            end = max(counter.next, counter.top())
            if key[0] in (self.capture, self.handed_over) or key[0] in self.cut_off:
                in_flight += counter.missing_below(end)
            else:
                self.holes(size - 1, key, counter, end)
        if in_flight:
            self.out.note("in_flight", f"{in_flight} events were numbered and not written when a run was cut off, or yet")


# ----------------------------------------------------------------------------------------------------------
# Trust files
# ----------------------------------------------------------------------------------------------------------

class Trust:
    """A trust file; raises Refused for anything else."""

    KEYS = {"version": int, "origin": str, "log_key": str, "genesis": str, "first_epoch_key": str,
            "minimum_tier": str, "required": list}

    def __init__(self, data):
        try:
            table = tomllib.loads(data.decode("utf-8"))
        # Deeply nested arrays exhaust the stack of the TOML reader, which is written recursively.
        except (ValueError, RecursionError) as error:
            raise Refused(f"not TOML: {error}") from error
        heads = table.pop("head", [])
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

    def __init__(self, directory, trust, strict):
        self.directory, self.trust, self.strict = directory, trust, strict
        self.out = Outcome()
        self.tree, self.complete = Tree(), True
        self.genesis = None
        self.audit = None

    def read(self, name, limit):
        try:
            return read_file(self.directory, name, limit)
        except Refused as why:
            raise CannotCheck(str(why)) from why

    def verify(self):
        """The claims and what became of each; findings and notes are in `out`."""
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
        self.audit = Audit(origin, self.strict, self.out)
        self.walk(size)
        self.audit.finish(size)
        if self.complete and self.tree.root() != root:
            self.out.find("root_mismatch", f"the {size} entries have another root hash than the checkpoint")
        self.signatures(origin, body, signatures)
        self.compare_with_trust(origin)
        return self.claims()

    def has_genesis(self):
        for width in range(TILE_WIDTH, 0, -1):
            data = self.read(tile_path("entries", 0, width), BUNDLE_BYTES_MAX)
            if data is None:
                continue
            try:
                if decode(split_bundle(data, width)[0])["kind"] == "genesis":
                    return True
            except Refused:
                continue
        return False

    def stored(self, level, tile, width, limit):
        """A file of the directory and how many items it should hold: the full one where the partial is gone."""
        for stored_width in sorted({width, TILE_WIDTH}):
            data = self.read(tile_path(level, tile, stored_width), limit)
            if data is not None:
                return data, stored_width
        return None, width

    def tile(self, level, tile, width):
        data, stored_width = self.stored(level, tile, width, TILE_WIDTH * 32)
        path = tile_path(level, tile, width)
        if data is None:
            self.out.find("tile_missing", f"{path} is missing")
        elif len(data) != stored_width * 32:
            self.out.find("tile_differs", f"{path} has another length")
        else:
            return [data[at:at + 32] for at in range(0, width * 32, 32)]
        return None

    def bundle(self, number, width):
        data, stored_width = self.stored("entries", number, width, BUNDLE_BYTES_MAX)
        path = tile_path("entries", number, width)
        try:
            if data is not None:
                return split_bundle(data, stored_width)[:width]
            self.out.find("bundle_missing", f"{path} is missing", number * TILE_WIDTH)
        except Refused as why:
            self.out.find("bundle_malformed", f"{path}: {why}", number * TILE_WIDTH)
        return None

    def walk(self, size):
        previous = bytes(32)
        for number in range((size + TILE_WIDTH - 1) // TILE_WIDTH):
            first = number * TILE_WIDTH
            width = min(TILE_WIDTH, size - first)
            hashes = self.tile(0, number, width)
            entries = self.bundle(number, width)
            if entries is None:
                self.audit.sighted = False
                previous = None
            if hashes is None and entries is None:
                self.complete = False
                break
            for at in range(width):
                previous = self.entry(first + at, entries and entries[at], hashes and hashes[at], previous)
        self.compare_head(size)
        late = [remembered for remembered in (self.trust.heads if self.trust else {}) if remembered > size]
        if late:
            self.out.find("log_truncated", f"{size} entries, the trust file remembers {max(late)}")
        if self.complete:
            for level, tile, hashes in self.tree.partial_tiles():
                self.compare_tile(level, tile, hashes)

    def entry(self, index, data, stored, previous):
        self.compare_head(None)
        leaf = stored
        if data is not None:
            own = leaf_hash(data)
            if stored is None:
                leaf = own
            elif stored != own:
                self.out.find("entry_altered", f"entry {index} does not have the hash that was stored for it", index)
            self.audit.entry(index, data, leaf, previous)
        if index == 0:
            self.genesis = leaf
        for level, tile, hashes in self.tree.append(leaf):
            self.compare_tile(level, tile, hashes)
        return leaf

    def compare_head(self, end):
        """Compares the head that the trust file remembers at the present size; `end` is the checkpoint's size."""
        root = self.trust.heads.get(self.tree.size) if self.trust and self.complete else None
        if root is not None and root != self.tree.root():
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
        if trust.minimum_tier != "T0":
            self.out.find("tier_too_low", f"tier T0, the trust file requires {trust.minimum_tier}")

    def claims(self):
        unproved = {"non_equivocation", "host_state", "time_bounds"}
        if self.trust is None:
            unproved |= {"authenticity", "continuity"}
        if not self.audit.sighted:
            unproved |= {"coverage", "sessions"}
        if self.audit.overflowed or self.audit.runs == 0:
            unproved.add("coverage")
        if "integrity" in self.out.failed:
            unproved |= set(CLAIMS)
        claims = {}
        for claim in CLAIMS:
            claims[claim] = ("failed" if claim in self.out.failed else
                             "not proved" if claim in unproved else "proved")
        for claim in CLAIMS if self.trust and not self.out.total else ():
            if claim in self.trust.required and claims[claim] == "not proved":
                self.out.find("claim_not_proved", f"the trust file requires {claim}, which is not proved")
        return claims


def check(directory, trust_path, strict):
    """(exit code, claims, outcome or None, why it could not be checked or None)"""
    outcome = None
    try:
        trust = None
        if trust_path is not None:
            data = read_file("", trust_path, TRUST_BYTES_MAX, follow=True)
            if data is None:
                raise CannotCheck("there is no trust file")
            trust = Trust(data)
        log = Log(directory, trust, strict)
        claims = log.verify()
        outcome = log.out
    except Refused as why:
        return 2, {}, None, f"trust file: {why}"
    except CannotCheck as why:
        return 2, {}, None, str(why)
    code = 1 if outcome.total else (0 if trust is not None else 2)
    return code, claims, outcome, None


# ----------------------------------------------------------------------------------------------------------
# Command line
# ----------------------------------------------------------------------------------------------------------

VERDICTS = {0: "every claim that the trust file requires is proved (tier T0: a software key)",
            1: "findings",
            2: "self-consistent, signer not established: no trust file"}


def show(result, as_json):
    code, claims, outcome, why = result
    if as_json:
        findings = [{"name": name, "index": index, "text": text}
                    for name, index, text in outcome.findings] if outcome else []
        notes = [{"name": name, "text": text} for name, text in outcome.notes] if outcome else []
        print(json.dumps({"exit": code, "error": why, "claims": claims, "findings": findings, "notes": notes,
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
    print(VERDICTS[code])


def run_vectors(directory):
    """Each directory with an `expected.json` holds `log/`, perhaps `trust.toml`, and what must come out."""
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
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


def run_vector(place):
    """What is wrong with the verdict on one vector, or None."""
    try:
        expected = json.loads(read_file(place, "expected.json", EXPECTED_BYTES_MAX) or b"")
        wanted = list(zip(expected["findings"], expected["indexes"], strict=True))
        code, strict = expected["exit"], expected["strict"]
    except (Refused, ValueError, TypeError, KeyError, RecursionError) as error:
        return f"no usable expected.json: {error}"
    trust_path = os.path.join(place, "trust.toml")
    result = check(os.path.join(place, "log"), trust_path if os.path.lexists(trust_path) else None, strict)
    seen = [(name, index) for name, index, _ in result[2].findings] if result[2] else []
    # Readers may find things in another order, but not other things.
    if result[0] == code and sorted(seen, key=repr) == sorted(wanted, key=repr):
        return None
    return f"exit {result[0]} {seen}, expected {code} {wanted} {result[3] or ''}"


def main(arguments):
    # Names and paths may hold anything; printing them must not fail.
    sys.stdout.reconfigure(errors="backslashreplace")
    sys.stderr.reconfigure(errors="backslashreplace")
    trust_path, strict, as_json, vectors, places = None, False, False, None, []
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
        elif argument == "--json":
            as_json = True
        else:
            places.append(argument)
    if vectors is not None and not places:
        return run_vectors(vectors)
    if len(places) != 1 or places[0].startswith("-"):
        print("usage: verify.py LOGDIR [--trust FILE] [--strict] [--json] | verify.py --vectors DIR", file=sys.stderr)
        return 2
    result = check(places[0], trust_path, strict)
    show(result, as_json)
    return result[0]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
