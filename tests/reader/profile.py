"""Entries: the strict JSON profile of docs/FORMAT.md, section 5, and the tables of section 11.

The parser follows the tables and accepts the one permitted text; it builds no other JSON first. Nesting is bounded by
the tables and not by the input.
"""

import re

from reader.basics import Refused, decode_base64

ENTRY_BYTES_MAX = 65_535
U32_MAX = 2**32 - 1
U53_MAX = 2**53 - 1
U64_MAX = 2**64 - 1

# name: (shape, members). A member is `key=form`, with `?` when it may be absent; `[]` before a form is a list.
FORMS = {
    "verdict": ("object",
        "decision=decision_word enforced=enforcement set=u53 by=[]text errors=[]text"),
    "blob": ("object",
        "sha256=hex:32 size=u64"),
    "predecessor": ("object",
        "origin=text size=u53 root=b64:32 cause=succession_cause"),
    "hook": ("object",
        "event=text hook=text program=text tag=text id=u32 link?=u32"),
    "not_covered": ("object",
        "what=text why=text"),
    "cadence": ("object",
        "commit_ms=u32 seal_ms=u32 heartbeat_ms=u32 anchor_ms?=u32 counter_ms?=u32"),
    "counter": ("row",
        "cpu=u32 class=class next=u64 dropped=u64 settled=u64"),
    "canary": ("row",
        "class=class seen=bool"),
    "session_state": ("row",
        "session=u53 number=u53 hash=b64:32"),
    "number_range": ("row",
        "cpu=u32 class=class first=u64 last=u64"),
    "loss_share": ("row",
        "scope=u64 count=u64"),
    "scope_root": ("object",
        "cgroup?=u64 path=text classes=u32"),
    "pcr": ("row",
        "index=u32 value=hex:32"),
    "requester": ("object",
        "process?=u64 tgid=u32 uid=u32 gid=u32"),
    "issued_claims": ("object",
        "task?=value labels=[]label"),
    "context_claims": ("object",
        "name=text trace?=base64 span?=base64 parent?=base64 began?=u64 ended?=u64 attributes=[]label"),
    "decision_claims": ("object",
        "subject_type=text subject=value action=text resource_type=text resource=value properties=[]label"),
    "comm_claims": ("object",
        "comm=text"),
    "exec_claims": ("object",
        "comm=text invoked?=value"),
    "exec_before": ("object",
        "euid?=u32 egid?=u32 caps?=hex:8"),
    "script": ("object",
        "path=value ino=u64 dev=device sha256?=hex:32"),
    "open_claims": ("object",
        "comm=text asked?=value dir_fd?=u32"),
    "change_claims": ("object",
        "comm=text asked?=value asked_to?=value dir_fd?=u32 to_dir_fd?=u32"),
    "resolved_name": ("object",
        "name=value source=name_source age=u64"),
    "credential_set": ("object",
        "uid=u32 gid=u32 euid=u32 egid=u32 suid=u32 sgid=u32 fsuid=u32 fsgid=u32 caps=hex:8 caps_permitted=hex:8 "
        "caps_inheritable=hex:8 caps_ambient=hex:8 user_namespace=u32"),
    "device": ("row",
        "major=u32 minor=u32"),
    "key_tier": ("words",
        "T0 T1 T2 T3"),
    "succession": ("words",
        "first continued orphan"),
    "succession_cause": ("words",
        "operator fault enrolment"),
    "gap_cause": ("words",
        "ring_full decode unexplained not_observed disk_full"),
    "recovery_cause": ("words",
        "clean crash"),
    "disarm_cause": ("words",
        "operator upgrade host_stop fault"),
    "secure_boot": ("words",
        "on off unknown"),
    "voucher": ("words",
        "nobody site cloud vendor"),
    "anchor_cause": ("words",
        "interval start stop session_start session_end act nonce"),
    "counter_op": ("words",
        "intent step late capped"),
    "measured_log": ("words",
        "event_log ima systemd"),
    "witness_outcome": ("words",
        "cosigned refused conflict"),
    "storage_state": ("words",
        "ok low full"),
    "subject": ("words",
        "tpm keys clock hooks store sink identity limit"),
    "workload_kind": ("words",
        "kubernetes container systemd session host unknown"),
    "session_sort": ("words",
        "run container unit"),
    "revoke_cause": ("words",
        "exit expiry operator host_stop"),
    "credential_op": ("words",
        "issued renewed refused revoked"),
    "credential_type": ("words",
        "jwt_svid x509_svid bundle"),
    "context_source": ("words",
        "otlp_span otlp_log notebook"),
    "decision_word": ("words",
        "allow deny"),
    "enforcement": ("words",
        "none kernel asker"),
    "secret_sort": ("words",
        "service_account cloud ssh spiffe env container_runtime configured"),
    "transport": ("words",
        "tcp udp icmp icmp6 sctp mptcp other"),
    "name_source": ("words",
        "wire resolver"),
    "file_op": ("words",
        "create mkdir symlink link rename exchange unlink rmdir chmod chown truncate set_xattr remove_xattr"),
    "hash_state": ("words",
        "done changed too_long queue_full unreadable"),
    "file_format": ("words",
        "elf script safetensors gguf onnx torch other"),
    "cgroup_op": ("words",
        "create remove move"),
    "access_how": ("words",
        "ptrace mem vm_read vm_write getfd other"),
    "mount_op": ("words",
        "mount bind move remount unmount pivot_root chroot"),
    "namespace_op": ("words",
        "unshare clone enter"),
    "kernel_code": ("words",
        "module module_removed kexec firmware live_patch"),
    "marks": ("set",
        "no_strings io_worker deferred path_partial path_detached path_unlinked path_unreadable cwd_unsure "
        "argv_truncated argv_unread claim_truncated claim_unread by_thread racy unresolved differs created "
        "oflags_claimed result_not_observed done_follows untracked whole_process memfd overlay_upper set_id "
        "file_caps denied against_agent first_of_many totals_partial"),
}

KINDS = {
    "genesis": (True,
        "format=u32 origin=text log_key=text key_tier=key_tier boot_id=text kernel=text machine?=hex:32 "
        "predecessor?=predecessor"),
    "epoch": (True,
        "number=u53 public_key=b64:32 first_size=u53 how=succession counter?=u64 sig_log=b64:64 "
        "sig_previous?=b64:64 attest?=base64 sig_attest?=base64"),
    "armed": (True,
        "run=hex:16 boot_id=text capture_id=hex:16 resumed=bool agent_version=text agent_digest=hex:32 "
        "object_digest=hex:32 offsets_digest=hex:32 config_digest=hex:32 policy_digest?=hex:32 kernel=text "
        "kernel_build?=text lockdown=text secure_boot=secure_boot hook_tier=text key_tier=key_tier cadence=cadence "
        "hooks=[]hook not_covered=[]not_covered scope=text"),
    "heartbeat": (True,
        "capture_id=hex:16 counters=[]counter sessions=[]session_state hooks_ok=bool hooks_digest=hex:32 "
        "canaries=[]canary"),
    "disarmed": (True,
        "cause=disarm_cause capture_id=hex:16 counters=[]counter sessions=[]session_state"),
    "gap": (True,
        "cause=gap_cause capture_id=hex:16 ranges=[]number_range count=u64 shares=[]loss_share from?=u64 to?=u64"),
    "recovered": (True,
        "cause=recovery_cause size=u53 replayed=u64 torn_bytes=u64"),
    "scope": (True,
        "text=text host_classes=u32 roots=[]scope_root"),
    "policy": (True,
        "language=text set=blob count=u32 enforcing=bool"),
    "attestation_key": (True,
        "public=base64 name=base64 qualified_name=base64 voucher=voucher certificates=[]blob ek_certificates=[]blob "
        "tpm=text"),
    "anchor": (True,
        "number=u64 cause=anchor_cause epoch=u53 size=u53 root=b64:32 previous=hex:32 nonce?=base64 attest=base64 "
        "sig=base64 pcrs=[]pcr"),
    "counter": (True,
        "op=counter_op index=u32 name?=base64 value=u64 previous?=hex:32 attest?=base64 sig?=base64"),
    "measured": (True,
        "log=measured_log content=blob from=u64 complete=bool"),
    "outside": (True,
        "source=text value=base64 time?=u64 by?=requester"),
    "witness": (True,
        "outcome=witness_outcome name=text size=u53 root=b64:32 time?=u64 line?=text detail?=text"),
    "pruned": (True,
        "first=u53 kept=u64 rule=text by?=requester"),
    "erased": (True,
        "of=u53 field=text reason=text by=requester"),
    "hold": (True,
        "session=u53 on=bool reason=text by=requester"),
    "storage": (True,
        "state=storage_state free=u64 reserve=u64 classes=u32"),
    "exported": (True,
        "sink=text format=text from=u53 to=u53 sent=u64 filtered=u64"),
    "condition": (True,
        "subject=subject ok=bool state=text detail?=text"),
    "unknown": (True,
        "cgroup=u64 path?=value reason=text"),
    "identified": (True,
        "of=u53 workload=u53"),
    "workload": (False,
        "sort=workload_kind id=text cgroup=u64 path=text how=text labels=[]label"),
    "process": (False,
        "tgid=u32 start=u64 parent?=u64 cgroup=u64 path?=value uid=u32 gid=u32 euid=u32 egid=u32 how=text "
        "claims=comm_claims"),
    "issued": (False,
        "id=text sort=session_sort identity=text rule?=text parent?=u53 cgroup=u64 uid?=u32 gid?=u32 ttl?=u64 "
        "by?=requester claims=issued_claims"),
    "revoked": (False,
        "id=text cause=revoke_cause code?=u32 signal?=u32 residual?=u64 acts=[]kind_count entries=u64 hash=b64:32"),
    "credential": (False,
        "op=credential_op type=credential_type identity=text serial?=text audience=[]text not_after?=u64 "
        "sha256?=hex:32 issuer?=text reason?=text by?=requester"),
    "context": (False,
        "source=context_source peer?=requester peer_unknown?=text claims=context_claims"),
    "decision": (False,
        "peer?=requester peer_unknown?=text request?=text claims=decision_claims"),
    "secret": (False,
        "of=u53 sort=secret_sort rule=text"),
    "hashed": (False,
        "path?=value ino=u64 dev=device ctime=u64 size=u64 state=hash_state sha256?=hex:32 format?=file_format"),
    "file_folded": (False,
        "directory?=value ranges=[]number_range count=u64 names=hex:32 from=u64 to=u64"),
    "fork": (False,
        "child=u64 child_tgid=u32 child_start=u64 child_cgroup?=u64 flags?=u64 tgid=u32 uid=u32 marks?=marks "
        "claims=comm_claims"),
    "exec": (False,
        "path?=value script?=script argv=[]value argc=u32 cwd?=value tgid=u32 parent=u64 uid=u32 gid=u32 euid=u32 "
        "egid=u32 suid=u32 sgid=u32 login_uid?=u32 caps=hex:8 caps_permitted?=hex:8 caps_ambient?=hex:8 "
        "before?=exec_before ino=u64 dev=device nlink=u32 mode=u32 size=u64 ctime?=u64 sha256?=hex:32 marks?=marks "
        "claims=exec_claims"),
    "exec_failed": (False,
        "errno=u32 tgid=u32 uid=u32 euid?=u32 marks?=marks claims=exec_claims"),
    "exit": (False,
        "tgid=u32 code?=u32 signal?=u32 uid=u32 user_time?=u64 system_time?=u64 marks?=marks claims=comm_claims"),
    "connect": (False,
        "proto=transport local?=address remote=address errno?=u32 socket=u64 tgid=u32 uid=u32 euid?=u32 "
        "name?=resolved_name marks?=marks claims=comm_claims"),
    "connect_done": (False,
        "proto=transport local?=address remote=address errno?=u32 socket=u64 tgid=u32 uid=u32 marks?=marks "
        "claims=comm_claims"),
    "flow": (False,
        "proto=transport local?=address remote=address socket=u64 sent=u64 received=u64 began?=u64 duration?=u64 "
        "tgid=u32 uid=u32 euid?=u32 marks?=marks claims=comm_claims"),
    "send": (False,
        "proto=transport local?=address remote=address errno?=u32 bytes?=u64 socket=u64 tgid=u32 uid=u32 euid?=u32 "
        "marks?=marks claims=comm_claims"),
    "listen": (False,
        "proto=transport local=address errno?=u32 socket=u64 tgid=u32 uid=u32 euid?=u32 marks?=marks "
        "claims=comm_claims"),
    "accept": (False,
        "proto=transport local=address remote=address socket=u64 tgid=u32 uid=u32 euid?=u32 marks?=marks "
        "claims=comm_claims"),
    "connect_unix": (False,
        "path?=value abstract?=value type=u32 errno?=u32 peer?=u64 peer_tgid?=u32 peer_uid?=u32 socket?=u64 "
        "tgid=u32 uid=u32 euid?=u32 marks?=marks claims=comm_claims"),
    "connect_vsock": (False,
        "cid=u32 port=u32 errno?=u32 socket?=u64 tgid=u32 uid=u32 euid?=u32 marks?=marks claims=comm_claims"),
    "socket": (False,
        "family=u32 type=u32 protocol=u32 errno?=u32 socket?=u64 tgid=u32 uid=u32 euid?=u32 marks?=marks "
        "claims=comm_claims"),
    "open": (False,
        "path?=value oflags=u32 fd?=u32 errno?=u32 ino?=u64 dev?=device mode?=u32 nlink?=u32 tgid=u32 uid=u32 "
        "euid?=u32 marks?=marks claims=open_claims"),
    "file_change": (False,
        "op=file_op path?=value to?=value errno?=u32 ino?=u64 dev?=device mode?=u32 mode_before?=u32 owner?=u32 "
        "group?=u32 size?=u64 nlink?=u32 attribute?=text tgid=u32 uid=u32 euid?=u32 marks?=marks "
        "claims=change_claims"),
    "file_close": (False,
        "path?=value ino=u64 dev=device read=u64 written=u64 opened?=u64 tgid=u32 uid=u32 euid?=u32 marks?=marks "
        "claims=comm_claims"),
    "file_map": (False,
        "path?=value ino=u64 dev=device prot=u32 flags=u32 tgid=u32 uid=u32 euid?=u32 marks?=marks "
        "claims=comm_claims"),
    "file_received": (False,
        "path?=value ino=u64 dev=device sender?=u64 tgid=u32 uid=u32 euid?=u32 marks?=marks claims=comm_claims"),
    "cgroup": (False,
        "op=cgroup_op id=u64 path?=text parent?=u64 moved?=u64 moved_tgid?=u32 scope_before?=u64 scope_after?=u64 "
        "tgid=u32 uid=u32 marks?=marks claims=comm_claims"),
    "creds": (False,
        "before=credential_set after=credential_set tgid=u32 uid=u32 euid?=u32 marks?=marks claims=comm_claims"),
    "process_access": (False,
        "how=access_how target=u64 target_tgid=u32 target_scope?=u64 mode=u32 errno?=u32 tgid=u32 uid=u32 euid?=u32 "
        "marks?=marks claims=comm_claims"),
    "signal": (False,
        "target?=u64 target_tgid=u32 signal=u32 errno?=u32 tgid=u32 uid=u32 euid?=u32 marks?=marks "
        "claims=comm_claims"),
    "mount": (False,
        "op=mount_op source?=value target?=value fstype?=text flags=u64 errno?=u32 tgid=u32 uid=u32 euid?=u32 "
        "marks?=marks claims=comm_claims"),
    "namespace": (False,
        "op=namespace_op flags=u64 mount_namespace?=u32 pid_namespace?=u32 network_namespace?=u32 "
        "user_namespace?=u32 errno?=u32 tgid=u32 uid=u32 euid?=u32 marks?=marks claims=comm_claims"),
    "bpf": (False,
        "cmd=u32 type?=u32 id?=u32 name?=text errno?=u32 tgid=u32 uid=u32 euid?=u32 marks?=marks claims=comm_claims"),
    "kernel_load": (False,
        "what=kernel_code name?=text path?=value sha256?=hex:32 errno?=u32 tgid=u32 uid=u32 euid?=u32 marks?=marks "
        "claims=comm_claims"),
    "key": (False,
        "op=u32 serial?=u32 type?=text description?=value errno?=u32 tgid=u32 uid=u32 euid?=u32 marks?=marks "
        "claims=comm_claims"),
    "io_uring": (False,
        "op=u32 flags=u32 entries?=u32 errno?=u32 tgid=u32 uid=u32 euid?=u32 marks?=marks claims=comm_claims"),
}

# Forms of a common member, in order, between `kind` and `body`.
COMMON = ("wall=u64 boot=u64 q?=kernel_number p?=u64 w?=u53 s?=u53 n?=u53 c?=u53 prev=b64:32 rnd=b64:16 "
          "verdict?=verdict")


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


def value(data, at):
    """A text as bytes, or the commitment to one as `{"c": bytes}`."""
    if data.startswith(b'{"c":', at):
        committed, end = fixed_base64(32)(data, at + 5)
        return {"c": committed}, expect(data, end, b"}")
    return text(data, at)


def any_base64(data, at):
    encoded, end = bare(data, at)
    decoded = decode_base64(encoded)
    if decoded is None:
        raise Refused(f"byte {at}: expected base64")
    return decoded, end


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
        "u32": number(U32_MAX), "u53": number(U53_MAX), "u64": quoted_number, "class": number(4),
        "bool": boolean, "text": text, "value": value, "base64": any_base64, "address": address, "kind": word(KINDS),
    }

    def form(name):
        if name.startswith("[]"):
            return listed(form(name[2:]))
        if name not in forms and name in FORMS:
            shape, line = FORMS[name]
            if shape == "object":
                forms[name] = record(list(members(line)))
            elif shape == "row":
                forms[name] = row([m[3] for m in members(line)])
            else:
                forms[name] = {"words": word, "set": word_set}[shape](line.split())
        elif name not in forms:
            base, _, size = name.partition(":")
            forms[name] = {"b64": fixed_base64, "hex": fixed_hex}[base](int(size))
        return forms[name]

    def members(line):
        for member in line.split():
            key, _, name = member.partition("=")
            optional = key.endswith("?")
            key = key.rstrip("?")
            yield key, b'"' + key.encode() + b'":', optional, form(name)

    forms["label"] = row([text, value])
    forms["kind_count"] = row([forms["kind"], quoted_number])
    forms["kernel_number"] = row([forms["u32"], forms["class"], quoted_number])
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


def commitments(entry):
    """The committed values of an entry, in their order: (field, commitment)."""
    found, waiting = [], [(entry["kind"].encode(), entry["body"])]
    while waiting:
        path, item = waiting.pop()
        if isinstance(item, dict):
            if isinstance(item.get("c"), bytes):
                found.append((path, item["c"]))
                continue
            parts = [(key.encode(), part) for key, part in item.items()]
        elif isinstance(item, list):
            parts = [(b"%d" % place, part) for place, part in enumerate(item)]
        else:
            continue
        waiting += [(path + b"." + name, part) for name, part in reversed(parts)]
    return found


def decode_disclosure(data):
    """(index, field, salt, text) of a line of a sidecar."""
    index, at = FORM["u53"](data, expect(data, 0, b'{"i":'))
    field, at = bare(data, expect(data, at, b',"field":'))
    salt, at = fixed_base64(16)(data, expect(data, at, b',"salt":'))
    disclosed, at = text(data, expect(data, at, b',"text":'))
    if expect(data, at, b"}") != len(data):
        raise Refused("bytes after the end of a disclosure")
    return index, field, salt, disclosed
