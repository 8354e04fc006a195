"""Certificates of attestation keys: who vouches for a key (FORMAT.md section 19). Python's standard library only.

As a program (`python3 -m reader.certificates`) it judges cases, one JSON object a line on standard input, and answers each with a
line: the verifier's tests of certificates compare each of their outcomes with it."""

import calendar
import hashlib
import json
import sys
import time
from collections import namedtuple

from reader.basics import Refused

BYTES_MAX = 16384
CHAIN_MAX = 8
EXTENSIONS_MAX = 32

Curve = namedtuple("Curve", "p a b n gx gy size")
P256 = Curve(
    p=0xFFFFFFFF00000001000000000000000000000000FFFFFFFFFFFFFFFFFFFFFFFF,
    a=-3,
    b=0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B,
    n=0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551,
    gx=0x6B17D1F2E12C4247F8BCE6E563A440F277037D812DEB33A0F4A13945D898C296,
    gy=0x4FE342E2FE1A7F9B8EE7EB4A7C0F9E162BCE33576B315ECECBB6406837BF51F5,
    size=32,
)
P384 = Curve(
    p=2**384 - 2**128 - 2**96 + 2**32 - 1,
    a=-3,
    b=0xB3312FA7E23EE7E4988E056BE3F82D19181D9C6EFE8141120314088F5013875AC656398D8A2ED19D2A85C8EDD3EC2AEF,
    n=0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFC7634D81F4372DDF581A0DB248B0A77AECEC196ACCC52973,
    gx=0xAA87CA22BE8B05378EB1C71EF320AD746E1D3B628BA79B9859F741E082542A385502F25DBF55296C3A545E3872760AB7,
    gy=0x3617DE4A96262C6F5D9E98BF9292DC29F8F41DBD289A147CE9DA3113B5F0B8C00A60B1CE1D7E819D7A431D7C90EA0E5F,
    size=48,
)
CURVES = {"1.2.840.10045.3.1.7": P256, "1.3.132.0.34": P384}
EC_KEY, RSA_KEY = "1.2.840.10045.2.1", "1.2.840.113549.1.1.1"
ALGORITHMS = {
    "1.2.840.10045.4.3.2": ("ec", hashlib.sha256),
    "1.2.840.10045.4.3.3": ("ec", hashlib.sha384),
    "1.2.840.113549.1.1.11": ("rsa", hashlib.sha256),
    "1.2.840.113549.1.1.12": ("rsa", hashlib.sha384),
}
DIGEST_INFO = {
    "sha256": bytes.fromhex("3031300d060960864801650304020105000420"),
    "sha384": bytes.fromhex("3041300d060960864801650304020205000430"),
}
# Tags of universal types that a certificate may have.
UNIVERSAL = {1, 2, 3, 4, 5, 6, 9, 10, 12, 13, 18, 19, 20, 21, 22, 23, 24, 26, 27, 30, 0x30, 0x31}
WITHOUT_EFFECT = {"2.5.29.35", "2.5.29.31", "1.3.6.1.5.5.7.1.1", "2.5.29.9", "2.5.29.32", "2.5.29.17"}
BASIC_CONSTRAINTS, KEY_USAGE, PURPOSES, KEY_ID = "2.5.29.19", "2.5.29.15", "2.5.29.37", "2.5.29.14"
ALT_NAMES, POLICIES, NAME_CONSTRAINTS = "2.5.29.17", "2.5.29.32", "2.5.29.30"
ATTESTATION, ENDORSEMENT, RESTRICTED = "2.23.133.8.3", "2.23.133.8.1", "2.23.133.11.1.3"
TIE = "1.2.840.113556.1.8000.2554.46551.9786.12491.16897.44697.9746457.8730822"
DIGITAL_SIGNATURE, KEY_ENCIPHERMENT, KEY_AGREEMENT, CERT_SIGN = 0, 2, 4, 5


def need(holds, rule):
    if not holds:
        raise Refused(rule)


class Der:
    """DER, one value after the other."""

    def __init__(self, data):
        self.data, self.at = data, 0

    def more(self):
        return self.at < len(self.data)

    def tag(self):
        return self.data[self.at] if self.more() else None

    def whole(self):
        """The next value: tag, content, and all of its bytes."""
        need(len(self.data) - self.at >= 2, "cut off")
        start, tag, length = self.at, self.data[self.at], self.data[self.at + 1]
        need(tag & 0x1F != 0x1F, "long tag")
        need(tag >= 0x40 or tag in UNIVERSAL, "tag")
        self.at += 2
        if length >= 0x80:
            count = length & 0x7F
            need(1 <= count <= 3 and len(self.data) - self.at >= count, "length")
            length = int.from_bytes(self.data[self.at : self.at + count], "big")
            need(length >= 0x80 and length >> (8 * (count - 1)) != 0, "length not minimal")
            self.at += count
        need(len(self.data) - self.at >= length, "cut off")
        content = self.data[self.at : self.at + length]
        self.at += length
        return tag, content, self.data[start : self.at]

    def take(self, tag):
        seen, content, _ = self.whole()
        need(seen == tag, f"tag {seen:#x}, expected {tag:#x}")
        return content

    def inner(self, tag=0x30):
        return Der(self.take(tag))

    def end(self):
        need(not self.more(), "trailing bytes")

    def integer(self, tag=0x02):
        content = self.take(tag)
        need(content and not (len(content) > 1 and (content[0] == 0 and content[1] < 0x80 or content[0] == 0xFF and content[1] >= 0x80)), "integer")
        return int.from_bytes(content, "big", signed=True)

    def number(self, bits):
        value = self.integer()
        need(0 <= value < 1 << bits, "number out of range")
        return value

    def boolean(self):
        content = self.take(0x01)
        need(content in (b"\x00", b"\xff"), "boolean")
        return content == b"\xff"

    def oid(self):
        content = self.take(0x06)
        need(0 < len(content) <= 39 and content[0] < 120 and content[-1] < 0x80, "object identifier")
        arcs, value, fresh = [], 0, True
        for byte in content:
            need(not (fresh and byte == 0x80), "object identifier")
            value, fresh = value << 7 | byte & 0x7F, byte < 0x80
            need(value < 1 << 32, "object identifier")
            if fresh:
                arcs.append(value)
                value = 0
        first = min(arcs[0] // 40, 2)
        return ".".join(str(arc) for arc in [first, arcs[0] - 40 * first] + arcs[1:])

    def bits(self):
        """A bit string of whole bytes."""
        content = self.take(0x03)
        need(content and content[0] == 0, "bit string")
        return content[1:]


def name(der):
    """A name: its bytes, whether it is empty, and its common names, each with its tag."""
    _, content, whole = der.whole()
    need(whole[0] == 0x30, "name")
    common, sets = [], Der(content)
    while sets.more():
        attributes, members = sets.inner(0x31), []
        need(attributes.more(), "empty set in a name")
        while attributes.more():
            _, attribute, encoded = attributes.whole()
            need(encoded[0] == 0x30, "attribute")
            members.append(encoded)
            inner = Der(attribute)
            kind = inner.oid()
            tag, value, _ = inner.whole()
            inner.end()
            if kind == "2.5.4.3":
                common.append((tag, value))
        need(members == sorted(members) and len(set(members)) == len(members), "set not in order")
    return whole, not content, common


def moment(der):
    tag, content, _ = der.whole()
    text = content.decode("ascii")
    if tag == 0x17:
        need(len(text) == 13, "time")
        text = ("19" if int(text[:2]) >= 50 else "20") + text
    else:
        need(tag == 0x18 and len(text) == 15, "time")
    need(text[-1] == "Z" and text[:-1].isdigit(), "time")
    seconds = calendar.timegm(time.strptime(text, "%Y%m%d%H%M%SZ"))
    need(seconds >= 0 and (int(text[:4]) >= 2050) == (tag == 0x18), "time")
    return seconds


def algorithm(der):
    _, content, whole = der.whole()
    need(whole[0] == 0x30, "algorithm")
    inner = Der(content)
    oid = inner.oid()
    parameters = inner.whole() if inner.more() else None
    inner.end()
    return oid, parameters, whole


def double(curve, point):
    x, y, z = point
    if z == 0 or y == 0:
        return 0, 1, 0
    s = 4 * x * y * y % curve.p
    m = (3 * x * x + curve.a * pow(z, 4, curve.p)) % curve.p
    new_x = (m * m - 2 * s) % curve.p
    return new_x, (m * (s - new_x) - 8 * pow(y, 4, curve.p)) % curve.p, 2 * y * z % curve.p


def plus(curve, one, other):
    if one[2] == 0:
        return other
    if other[2] == 0:
        return one
    (x1, y1, z1), (x2, y2, z2) = one, other
    u1, u2 = x1 * z2 * z2 % curve.p, x2 * z1 * z1 % curve.p
    s1, s2 = y1 * pow(z2, 3, curve.p) % curve.p, y2 * pow(z1, 3, curve.p) % curve.p
    if u1 == u2:
        return double(curve, one) if s1 == s2 else (0, 1, 0)
    h, r = u2 - u1, s2 - s1
    x = (r * r - h * h * h - 2 * u1 * h * h) % curve.p
    return x, (r * (u1 * h * h - x) - s1 * h * h * h) % curve.p, h * z1 * z2 % curve.p


def times(curve, scalar, point):
    result = (0, 1, 0)
    for bit in bin(scalar)[2:]:
        result = double(curve, result)
        if bit == "1":
            result = plus(curve, result, point)
    return result


def ecdsa_verifies(curve, x, y, digest, r, s):
    if not (0 < r < curve.n and 0 < s < curve.n):
        return False
    e = int.from_bytes(digest, "big") >> max(0, 8 * len(digest) - curve.n.bit_length())
    w = pow(s, -1, curve.n)
    point = plus(
        curve, times(curve, e * w % curve.n, (curve.gx, curve.gy, 1)), times(curve, r * w % curve.n, (x, y, 1))
    )
    return point[2] != 0 and point[0] * pow(point[2], -2, curve.p) % curve.p % curve.n == r


def subject_key(der):
    inner = der.inner()
    oid, parameters, _ = algorithm(inner)
    bits = inner.bits()
    inner.end()
    if oid == RSA_KEY:
        need(parameters and parameters[2] == b"\x05\x00", "RSA parameters")
        outer = Der(bits)
        numbers = outer.inner()
        outer.end()
        modulus, exponent = numbers.integer(), numbers.integer()
        numbers.end()
        need(2048 <= modulus.bit_length() <= 4096 and modulus > 0 and modulus % 2 == 1, "RSA modulus")
        need(65537 <= exponent < 1 << 32 and exponent % 2 == 1, "RSA exponent")
        return "rsa", modulus, exponent
    need(oid == EC_KEY and parameters and parameters[0] == 0x06, "sort of key")
    curve = CURVES.get(Der(parameters[2]).oid())
    need(curve and len(bits) == 1 + 2 * curve.size and bits[0] == 4, "point")
    x, y = (int.from_bytes(half, "big") for half in (bits[1 : 1 + curve.size], bits[1 + curve.size :]))
    need(x < curve.p and y < curve.p and (y * y - x * x * x - curve.a * x - curve.b) % curve.p == 0, "point")
    return curve, x, y


class Certificate:
    """One certificate (18.1); nothing about it is verified."""

    def __init__(self, data):
        need(len(data) <= BYTES_MAX, "too large")
        self.der = data
        outer = Der(data)
        parts = outer.inner()
        outer.end()
        _, signed, self.signed = parts.whole()
        need(self.signed[0] == 0x30, "certificate")
        beside = algorithm(parts)
        self.signature = parts.bits()
        parts.end()
        tbs = Der(signed)
        version = tbs.inner(0xA0)
        need(version.integer() == 2, "version")
        version.end()
        serial = tbs.whole()
        need(serial[0] == 0x02 and len(serial[1]) <= 21, "serial number")
        Der(serial[2]).integer()
        inside = algorithm(tbs)
        need(inside[2] == beside[2], "two algorithms")
        self.issuer, nobody, _ = name(tbs)
        need(not nobody, "no issuer")
        validity = tbs.inner()
        self.begin, self.last = moment(validity), moment(validity)
        validity.end()
        need(self.begin <= self.last, "backwards")
        self.subject, _, _ = name(tbs)
        self.key = subject_key(tbs)
        need(inside[0] in ALGORITHMS, "algorithm")
        self.sort, self.hash = ALGORITHMS[inside[0]]
        null = inside[1] and inside[1][2] == b"\x05\x00"
        need(null if self.sort == "rsa" else inside[1] is None, "parameters")
        for tag in (0x81, 0x82):
            if tbs.tag() == tag:
                tbs.take(tag)
        self.extensions = {}
        if tbs.tag() == 0xA3:
            self.read_extensions(tbs.inner(0xA3))
        tbs.end()
        self.read_known()

    def read_extensions(self, wrapped):
        listed = wrapped.inner()
        wrapped.end()
        while listed.more():
            extension = listed.inner()
            oid = extension.oid()
            critical = False
            if extension.tag() == 0x01:
                critical = extension.boolean()
                need(critical, "default written out")
            content = extension.take(0x04)
            extension.end()
            need(oid not in self.extensions, "extension twice")
            need(oid != NAME_CONSTRAINTS, "constraints on names")
            known = oid in WITHOUT_EFFECT or oid in (BASIC_CONSTRAINTS, KEY_USAGE, PURPOSES, KEY_ID)
            need(known or not critical, "critical and unknown")
            self.extensions[oid] = content
        need(len(self.extensions) <= EXTENSIONS_MAX, "too many extensions")

    def read_known(self):
        self.authority, self.below_max, self.usage, self.purposes = False, None, None, []
        if BASIC_CONSTRAINTS in self.extensions:
            outer = Der(self.extensions[BASIC_CONSTRAINTS])
            basic = outer.inner()
            outer.end()
            if basic.tag() == 0x01:
                self.authority = basic.boolean()
                need(self.authority, "default written out")
            if basic.more():
                self.below_max = basic.number(8)
            basic.end()
        if KEY_USAGE in self.extensions:
            outer = Der(self.extensions[KEY_USAGE])
            content = outer.take(0x03)
            outer.end()
            need(len(content) >= 1 and content[0] < 8, "key usage")
            text = "".join(f"{byte:08b}" for byte in content[1:])
            text, rest = text[: len(text) - content[0]], text[len(text) - content[0] :]
            need("1" not in rest and (text.endswith("1") or not text) and len(text) <= 9, "key usage")
            self.usage = {at for at, bit in enumerate(text) if bit == "1"}
        if PURPOSES in self.extensions:
            outer = Der(self.extensions[PURPOSES])
            listed = outer.inner()
            outer.end()
            while listed.more():
                self.purposes.append(listed.oid())
        if KEY_ID in self.extensions:
            outer = Der(self.extensions[KEY_ID])
            outer.take(0x04)
            outer.end()

    def may_sign(self):
        return self.usage is not None and CERT_SIGN in self.usage

    def signed_by(self, key):
        kind = key[0]
        if self.sort == "rsa":
            if kind != "rsa" or len(self.signature) != (key[1].bit_length() + 7) // 8:
                return False
            number = int.from_bytes(self.signature, "big")
            info = DIGEST_INFO[self.hash().name] + self.hash(self.signed).digest()
            padded = b"\x00\x01" + b"\xff" * (len(self.signature) - 3 - len(info)) + b"\x00" + info
            return number < key[1] and pow(number, key[2], key[1]) == int.from_bytes(padded, "big")
        if kind == "rsa":
            return False
        try:
            outer = Der(self.signature)
            numbers = outer.inner()
            outer.end()
            r, s = numbers.integer(), numbers.integer()
            numbers.end()
        except Refused:
            return False
        return ecdsa_verifies(*key, self.hash(self.signed).digest(), r, s)


def read_chain(chain):
    need(0 < len(chain) <= CHAIN_MAX, "length of the chain")
    try:
        return [Certificate(data) for data in chain]
    except ValueError as error:  # times and texts that Python cannot read
        raise Refused(str(error)) from error


def stands_above(certificate, below):
    need(certificate.authority, "not an authority")
    need(certificate.may_sign(), "may not sign")
    need(certificate.below_max is None or below <= certificate.below_max, "too many authorities below")


def follow(chain, roots, seconds):
    """The class of the root that a chain leads to (18.2). `roots` are pairs of class and certificate."""
    for position, certificate in enumerate(chain):
        need(certificate.begin <= seconds <= certificate.last, "not valid")
        if position > 0:
            stands_above(certificate, position - 1)
        for kind, root in roots:
            if root.subject == certificate.issuer and certificate.signed_by(root.key):
                stands_above(root, position)
                rest = chain[position + 1 :]
                need(not rest or len(rest) == 1 and rest[0].der == root.der, "surplus")
                return kind
        need(position + 1 < len(chain), "no root")
        need(chain[position + 1].subject == certificate.issuer, "order")
        need(certificate.signed_by(chain[position + 1].key), "signature")
    raise Refused("empty")


def for_signatures(leaf):
    need(not leaf.authority, "an authority")
    need(leaf.usage is not None and DIGITAL_SIGNATURE in leaf.usage and CERT_SIGN not in leaf.usage, "usage")


def policies(certificate):
    found = []
    try:
        outer = Der(certificate.extensions[POLICIES])
        listed = outer.inner()
        outer.end()
        while listed.more():
            found.append(listed.inner().oid())
    except (KeyError, Refused):
        return []
    return found


def read_tie(leaf):
    """The extension that ties a key to a log."""
    need(TIE in leaf.extensions, "not tied")
    outer = Der(leaf.extensions[TIE])
    content = outer.inner()
    outer.end()
    need(content.number(8) == 1, "version of the tie")
    tie = {"origin": content.take(0x0C).decode("utf-8")}
    for key in ("log_key", "genesis", "first_epoch_key"):
        tie[key] = content.take(0x04)
        need(len(tie[key]) == 32, key)
    tie["counter"] = None
    if content.tag() == 0xA0:
        counter = content.inner(0xA0)
        tie["counter"] = counter.take(0x04)
        counter.number(64)
        counter.end()
        need(4 <= len(tie["counter"]) <= 66, "name")
    content.number(32), content.number(32), content.number(64)
    for key in ("ak_name", "ek_name"):
        tie[key] = content.take(0x04)
        need(4 <= len(tie[key]) <= 66, "name")
    tie["ek_certificate"] = content.take(0x81) if content.tag() == 0x81 else None
    need(tie["ek_certificate"] is None or len(tie["ek_certificate"]) == 32, "ek_certificate")
    need(len(content.take(0x04)) == 32, "request")
    content.end()
    outer = Der(leaf.extensions.get(ALT_NAMES, b"\x30\x00"))
    names = outer.inner()
    outer.end()
    directory = names.inner(0xA4)
    _, _, common = name(directory)
    directory.end()
    names.end()
    need(len(common) == 1 and common[0][0] in (0x0C, 0x13), "subject")
    need(common[0][1] == tie["origin"].encode("utf-8"), "subject")
    return tie


def certification(data):
    """A certification by another key of the TPM: its attestation and signature, or nothing."""
    try:
        outer = Der(data)
        content = outer.inner()
        outer.end()
        version, attest, signature = content.integer(), content.take(0x04), content.take(0x04)
        content.end()
    except Refused:
        return None
    need(version == 1, "version of the certification")
    return attest, signature


def check_certification(certified, iak, case):
    attest, signature = certified
    need(iak.key[0] is P256, "the certifying key")
    need(ATTESTATION in iak.purposes or RESTRICTED in policies(iak), "not restricted")
    need(len(signature) == 72 and signature[:6] == bytes.fromhex("0018000b0020"), "signature")
    need(signature[38:40] == b"\x00\x20", "signature")
    r, s = (int.from_bytes(half, "big") for half in (signature[6:38], signature[40:]))
    need(ecdsa_verifies(*iak.key, hashlib.sha256(attest).digest(), r, s), "forged")
    tail = b"".join(len(part).to_bytes(2, "big") + part for part in (case["name"], case["qualified_name"]))
    need(attest[:6] == bytes.fromhex("ff5443478017") and attest.endswith(tail), "certifies something else")


def judge_endorsement(tie, shown, roots, seconds):
    if tie["ek_certificate"] is None:
        return "uncertified"
    if not shown:
        return "not_shown"
    need(hashlib.sha256(shown[0]).digest() == tie["ek_certificate"], "other endorsement certificate")
    if not roots:
        return "no_roots"
    try:
        chain = read_chain(shown)
        follow(chain, roots, seconds)
    except Refused:
        return "contradicted"
    leaf = chain[0]
    need(not leaf.authority and ENDORSEMENT in leaf.purposes, "not of an endorsement key")
    bit = KEY_ENCIPHERMENT if leaf.key[0] == "rsa" else KEY_AGREEMENT
    need(leaf.usage is not None and bit in leaf.usage and CERT_SIGN not in leaf.usage, "not for decryption")
    return "certified"


def who_vouches(case):
    """Who vouches, the tier, and what is known of the endorsement key (18.3, 18.4). Raises Refused."""
    shown = case["certificates"]
    certified = certification(shown[0]) if shown else None
    chain = read_chain(shown[1:] if certified else shown)
    by = follow(chain, case["roots"], case["seconds"])
    leaf = chain[0]
    if certified:
        need(by == "vendor", "not a vendor")
        for_signatures(leaf)
        check_certification(certified, leaf, case)
        return "vendor", "T3", "not_stated"
    need(leaf.key == (P256, case["x"], case["y"]), "other key")
    for_signatures(leaf)
    need(by != "endorsement", "a root for endorsement keys")
    if by == "cloud":
        return by, "T2", "not_stated"
    need(ATTESTATION in leaf.purposes, "purpose")
    if by == "vendor":
        return by, "T3", "not_stated"
    tie = read_tie(leaf)
    need(tie["ak_name"] == case["name"], "other name")
    for key in ("origin", "log_key", "genesis", "first_epoch_key"):
        need(tie[key] == case[key], key)
    need(tie["counter"] in (None, case["counter"]), "counter")
    endorsement = judge_endorsement(tie, case["ek_certificates"], case["ek_roots"], case["seconds"])
    high = by == "independent" and endorsement in ("certified", "not_shown", "no_roots")
    return by, "T3" if high else "T1", endorsement


def read_case(line):
    case = json.loads(line)
    for key in ("name", "qualified_name", "log_key", "genesis", "first_epoch_key", "counter"):
        case[key] = bytes.fromhex(case[key])
    for key in ("certificates", "ek_certificates"):
        case[key] = [bytes.fromhex(one) for one in case[key]]
    case["roots"] = [(kind, Certificate(bytes.fromhex(one))) for kind, one in case["roots"]]
    case["ek_roots"] = [("endorsement", Certificate(bytes.fromhex(one))) for one in case["ek_roots"]]
    case["x"], case["y"] = int(case["x"], 16), int(case["y"], 16)
    return case


def answer(line):
    """The judgement of a case; or, of one certificate alone, whether it can be read, and the tie in it."""
    alone = json.loads(line).get("certificate")
    if alone is None:
        return who_vouches(read_case(line))
    certificate = read_chain([bytes.fromhex(alone)])[0]
    try:
        read_tie(certificate)
    except (Refused, ValueError):
        return ["certificate"]
    return ["tied"]


if __name__ == "__main__":
    for line in sys.stdin:
        try:
            print(*answer(line))
        except (Refused, ValueError) as error:
            print("refused", str(error).replace("\n", " "))
