"""Ed25519 (RFC 8032, section 5.1, strict), signed notes and checkpoints: docs/FORMAT.md, sections 1 and 3."""

import hashlib
import re

from reader.basics import Refused, decode_base64
from reader.profile import U64_MAX

# ----------------------------------------------------------------------------------------------------------
# Ed25519
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
# Notes and checkpoints
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
