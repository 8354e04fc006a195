"""Structures that a TPM writes and signs, and ECDSA over P-256: docs/FORMAT.md, sections 8.1 and 8.2."""

import hashlib

from reader.basics import Refused

# ----------------------------------------------------------------------------------------------------------
# ECDSA over P-256 (FIPS 186-5, SEC 2)
# ----------------------------------------------------------------------------------------------------------

P = 2**256 - 2**224 + 2**192 + 2**96 - 1
N = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
B = 0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B
BASE = (0x6B17D1F2E12C4247F8BCE6E563A440F277037D812DEB33A0F4A13945D898C296,
        0x4FE342E2FE1A7F9B8EE7EB4A7C0F9E162BCE33576B315ECECBB6406837BF51F5, 1)
# Points are in Jacobian coordinates (X, Y, Z): x = X/Z^2, y = Y/Z^3; the neutral element has Z 0.
NEUTRAL = (1, 1, 0)


def double(point):
    x, y, z = point
    m = 3 * (x - z * z) * (x + z * z) % P
    s = 4 * x * y * y % P
    x3 = (m * m - 2 * s) % P
    return x3, (m * (s - x3) - 8 * pow(y, 4, P)) % P, 2 * y * z % P


def add(a, b):
    if a[2] == 0 or b[2] == 0:
        return b if a[2] == 0 else a
    az, bz = a[2] * a[2] % P, b[2] * b[2] % P
    u1, u2 = a[0] * bz % P, b[0] * az % P
    s1, s2 = a[1] * b[2] * bz % P, b[1] * a[2] * az % P
    h, r = (u2 - u1) % P, (s2 - s1) % P
    if h == 0:
        return double(a) if r == 0 else NEUTRAL
    hh = h * h % P
    hhh, v = h * hh % P, u1 * hh % P
    x3 = (r * r - hhh - 2 * v) % P
    return x3, (r * (v - x3) - s1 * hhh) % P, h * a[2] * b[2] % P


def multiply(scalar, point):
    total = NEUTRAL
    while scalar > 0:
        if scalar & 1:
            total = add(total, point)
        point = double(point)
        scalar >>= 1
    return total


def is_on_curve(x, y):
    return 0 <= x < P and 0 <= y < P and (y * y - (x * x * x - 3 * x + B)) % P == 0


def ecdsa_verifies(key, message, r, s):
    if not (0 < r < N and 0 < s < N):
        return False
    e = int.from_bytes(hashlib.sha256(message).digest(), "big")
    w = pow(s, -1, N)
    x, _, z = add(multiply(e * w % N, BASE), multiply(r * w % N, (*key, 1)))
    return z != 0 and (x * pow(z, -2, P) % P) % N == r


# ----------------------------------------------------------------------------------------------------------
# Structures (TPM 2.0 Library, Part 2)
# ----------------------------------------------------------------------------------------------------------

STRUCTURE_BYTES_MAX = 4096
NULL, ECC, ECDSA, SHA256 = 0x0010, 0x0023, 0x0018, 0x000B
P256 = 0x0003
DIGESTS = {0x000B: 32, 0x000C: 48, 0x000D: 64}
MAGIC = 0xFF544347
NV, CERTIFY, QUOTE, TIME, CREATION = 0x8014, 0x8017, 0x8018, 0x8019, 0x801A
# fixedTPM, fixedParent, sensitiveDataOrigin, restricted, sign must be set; decrypt and x509sign clear.
SET, CLEAR = 0x00050032, 0x000A0000
RESERVED = 0xFFFFFFFF & ~0x000F0FF6
COUNTER_ATTRIBUTES = 0x22060016


class Reader:
    """A cursor over a structure; raises Refused where it is not what it must be."""

    def __init__(self, data):
        if len(data) > STRUCTURE_BYTES_MAX:
            raise Refused("a structure that is too long")
        self.data, self.at = data, 0

    def take(self, count):
        part = self.data[self.at:self.at + count]
        if len(part) != count:
            raise Refused(f"a structure that ends at byte {self.at}")
        self.at += count
        return part

    def number(self, size):
        return int.from_bytes(self.take(size), "big")

    def buffer(self, least, most):
        size = self.number(2)
        if not least <= size <= most:
            raise Refused(f"a buffer of {size} bytes")
        return self.take(size)

    def name(self):
        return check_name(self.buffer(34, 66))

    def end(self):
        if self.at != len(self.data):
            raise Refused("bytes after a structure")


def check_name(name):
    if DIGESTS.get(int.from_bytes(name[:2], "big")) != len(name) - 2:
        raise Refused("a name that is none")
    return name


def sha256_name(data):
    return SHA256.to_bytes(2, "big") + hashlib.sha256(data).digest()


def counter_name(index):
    """Name of the NV counter of the format at this handle."""
    return sha256_name(index.to_bytes(4, "big") + SHA256.to_bytes(2, "big") + COUNTER_ATTRIBUTES.to_bytes(4, "big")
                       + b"\x00\x00" + b"\x00\x08")


def attestation_key(data):
    """The point of a public area that is one of an attestation key."""
    reader = Reader(data)
    kind, name_alg, attributes = reader.number(2), reader.number(2), reader.number(4)
    if kind != ECC or name_alg != SHA256 or attributes & RESERVED:
        raise Refused("a public area that is not of an attestation key")
    if attributes & SET != SET or attributes & CLEAR:
        raise Refused(f"an attestation key with the attributes {attributes:#x}")
    if len(reader.buffer(0, 32)) not in (0, 32):
        raise Refused("a policy that is none")
    if (reader.number(2), reader.number(2), reader.number(2), reader.number(2), reader.number(2)) != (
            NULL, ECDSA, SHA256, P256, NULL):
        raise Refused("a key that is not ECDSA with SHA-256 on P-256")
    point = tuple(int.from_bytes(reader.buffer(0, 32), "big") for _ in range(2))
    reader.end()
    if not is_on_curve(*point):
        raise Refused("a key that is no point of the curve")
    return point


def signature(data):
    """(r, s)"""
    reader = Reader(data)
    if (reader.number(2), reader.number(2)) != (ECDSA, SHA256):
        raise Refused("a signature of another algorithm")
    pair = tuple(int.from_bytes(reader.buffer(1, 32), "big") for _ in range(2))
    reader.end()
    return pair


def clock_info(reader):
    """(reset count, restart count, clock)"""
    clock, reset, restart, safe = (reader.number(size) for size in (8, 4, 4, 1))
    if safe > 1:
        raise Refused("`safe` is neither 0 nor 1")
    return reset, restart, clock


class Attest:
    """TPMS_ATTEST."""

    def __init__(self, data):
        reader = Reader(data)
        if reader.number(4) != MAGIC:
            raise Refused("not made by a TPM")
        self.kind = reader.number(2)
        self.signer = reader.name()
        self.extra = reader.buffer(0, 66)
        self.clock = clock_info(reader)
        reader.number(8)
        if self.kind == NV:
            self.name, self.offset, self.contents = reader.name(), reader.number(2), reader.buffer(0, 2048)
        elif self.kind == CERTIFY:
            reader.name(), reader.name()
        elif self.kind == QUOTE:
            count = reader.number(4)
            if count > 16:
                raise Refused("too many selections of registers")
            self.selections = []
            for _ in range(count):
                bank = reader.number(2)
                if reader.number(1) != 3:
                    raise Refused("a selection of another size")
                self.selections.append((bank, int.from_bytes(reader.take(3), "little")))
            self.digest = reader.buffer(32, 64)
        elif self.kind == TIME:
            reader.number(8)
            clock_info(reader)
            reader.number(8)
        elif self.kind == CREATION:
            reader.name(), reader.buffer(32, 64)
        else:
            raise Refused(f"an attestation of type {self.kind:#x}")
        reader.end()
