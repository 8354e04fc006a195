"""What was booted and loaded: event logs, measurement lists and quoted registers; docs/FORMAT.md, section 21."""

import hashlib

from reader.basics import Refused

ITEMS_MAX = 1 << 20
SETS_MAX = 1 << 14
CONTENT_BYTES_MAX = 16 << 30
EVENT_LOGS_MAX = 64
EVENT_LOG_BYTES_MAX = IMA_BYTES_MAX = 64 << 20
EVENTS_MAX = 1 << 16
IMA_DATA_BYTES_MAX = 1 << 20
STATIC_REGISTERS, REGISTERS, IMA_REGISTER = 16, 24, 10
OF_THE_EVENT_LOG = (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 14)
EV_NO_ACTION, SHA256 = 3, 11
START = bytes(32)


class Unusable(Exception):
    """A log that is no forgery and says nothing of the SHA-256 bank."""


class Cursor:
    """Little-endian numbers and bytes; raises Refused at the end."""

    def __init__(self, data):
        self.data, self.at = data, 0

    def bytes(self, size):
        if size > len(self.data) - self.at:
            raise Refused("it ends too early")
        self.at += size
        return self.data[self.at - size:self.at]

    def number(self, size):
        return int.from_bytes(self.bytes(size), "little")

    def sized(self):
        return self.bytes(self.number(4))

    def ended(self):
        return self.at == len(self.data)


def extend(register, digest):
    return hashlib.sha256(register + digest).digest()


def banks_of(log):
    """The algorithms and digest lengths that the first event announces."""
    try:
        register, kind = log.number(4), log.number(4)
        log.bytes(20)
        data = log.sized()
    except Refused as why:
        raise Unusable("no identification") from why
    if register != 0 or kind != EV_NO_ACTION or not data.startswith(b"Spec ID Event03\0"):
        raise Unusable("not a crypto agile log")
    header = Cursor(data)
    header.bytes(24)
    count, banks = header.number(4), {}
    if not 1 <= count <= 16:
        raise Refused("it announces no bank, or too many")
    for _ in range(count):
        algorithm, size = header.number(2), header.number(2)
        if algorithm in banks or not (size == 32 if algorithm == SHA256 else 1 <= size <= 64):
            raise Refused("a bank twice, or of an impossible length")
        banks[algorithm] = size
    header.bytes(header.number(1))
    if not header.ended():
        raise Refused("bytes follow the identification")
    if SHA256 not in banks:
        raise Unusable("no SHA-256 digests")
    return banks


def replay_event_log(data):
    """The 16 static registers that a log gives."""
    if len(data) > EVENT_LOG_BYTES_MAX:
        raise Unusable("longer than is read")
    log = Cursor(data)
    banks = banks_of(log)
    registers, located, extended, events = [START] * STATIC_REGISTERS, False, False, 0
    while not log.ended():
        register, kind, count = log.number(4), log.number(4), log.number(4)
        if count != len(banks):
            raise Refused("another number of digests than was announced")
        digests = {}
        for _ in range(count):
            algorithm = log.number(2)
            if algorithm not in banks or algorithm in digests:
                raise Refused("a digest that was not announced, or twice")
            digests[algorithm] = log.bytes(banks[algorithm])
        content = log.sized()
        if kind == EV_NO_ACTION:
            if content.startswith(b"StartupLocality\0"):
                locality = content[16:]
                if located or extended or register != 0 or locality not in (b"\0", b"\3", b"\4"):
                    raise Refused("a startup locality that is none, or too late")
                located, registers[0] = True, bytes(31) + locality
            continue
        events += 1
        if register >= REGISTERS or events > EVENTS_MAX:
            raise Refused("a register that there is not, or too many events")
        extended = extended or register == 0
        if register < STATIC_REGISTERS:
            registers[register] = extend(registers[register], digests[SHA256])
    return registers


class Ima:
    """The kernel's register after each entry of a list that comes in parts."""

    def __init__(self, register):
        self.register, self.begun, self.size = register, b"", 0

    def part(self, data, each):
        self.size += len(data)
        self.begun += data
        at = 0
        while True:
            entry = self.entry(at)
            if entry is None:
                break
            digest, at = entry
            self.register = extend(self.register, digest)
            each(self.register)
        self.begun = self.begun[at:]

    def entry(self, at):
        """The digest of the entry that begins here, and where it ends; None when it is not there to its end."""
        data, size = self.begun, len(self.begun)
        if at + 4 > size:
            return None
        if int.from_bytes(data[at:at + 4], "little") != IMA_REGISTER:
            raise Refused("an entry of another register")
        if at + 28 > size:
            return None
        violation = data[at + 4:at + 24] == bytes(20)
        name_size = int.from_bytes(data[at + 24:at + 28], "little")
        if not 1 <= name_size <= 255:
            raise Refused("not the name of a template")
        name, at = data[at + 28:at + 28 + name_size], at + 28 + name_size
        if at > size:
            return None
        old = name == b"ima"
        fixed = 24 if old else 4
        if at + fixed > size:
            return None
        length = int.from_bytes(data[at + fixed - 4:at + fixed], "little")
        if length > (255 if old else IMA_DATA_BYTES_MAX):
            raise Refused("more data than a template has")
        end = at + fixed + length
        if end > size:
            return None
        content = data[at + fixed:end]
        hashed = data[at:at + 20] + content.ljust(256, b"\0") if old else content
        fields = Cursor(b"" if old else content)
        while not fields.ended():
            fields.sized()
        return (b"\xff" * 32 if violation else hashlib.sha256(hashed).digest()), end


class Boot:
    def __init__(self, name):
        self.name, self.armed, self.quotes, self.parts = name, False, [], []


class Boots:
    """What was quoted of each boot, and the parts of logs, in the order of the entries."""

    def __init__(self, find, is_part=False):
        self.find, self.is_part = find, is_part
        self.boots, self.items, self.sets, self.overflowed = [], 0, set(), False
        self.not_quoted = False
        self.without_event_log = self.never_quoted = self.quotes = 0

    def has_room(self):
        self.items += 1
        self.overflowed = self.overflowed or self.items > ITEMS_MAX
        return not self.overflowed

    def boot(self, name, armed=False):
        if (not self.boots or self.boots[-1].name != name) and self.has_room():
            self.boots.append(Boot(name))
        if self.boots and self.boots[-1].name == name:
            self.boots[-1].armed = self.boots[-1].armed or armed

    def now(self):
        if not self.boots:
            self.boot(b"")
        return self.boots[-1] if self.boots else None

    def measured(self, index, body):
        boot = self.now()
        if self.has_room() and boot:
            boot.parts.append((index, body))

    def quoted(self, index, registers):
        """Registers, number to value, of a quote that holds."""
        ima = registers.get(IMA_REGISTER)
        others = tuple(sorted(item for item in registers.items() if item[0] != IMA_REGISTER))
        if others not in self.sets and len(self.sets) == SETS_MAX:
            self.overflowed = True
            return
        self.sets.add(others)
        boot = self.now()
        if boot is None:
            return
        self.quotes += 1
        last = boot.quotes[-1] if boot.quotes else None
        if last and last[1:] == (others, ima) and (not boot.parts or boot.parts[-1][0] < last[0]):
            return
        if self.has_room():
            boot.quotes.append((index, others, ima))

    def judge(self, policy, read):
        """`policy`: register to permitted values; `read`: digest and size to content or None."""
        left = CONTENT_BYTES_MAX

        def content(body):
            nonlocal left
            size = body["content"]["size"]
            if size > left:
                self.overflowed = True
                return None
            left -= size
            return read(body["content"]["sha256"], size)

        for boot in self.boots:
            if not boot.quotes:
                self.never_quoted += boot.armed
                continue
            self.compare_policy(boot, policy)
            self.without_event_log += self.event_log(boot, content) is None
            self.ima(boot, content)

    def contents(self):
        """Digests of the contents that `judge` asks for."""
        return {body["content"]["sha256"] for boot in self.boots for _, body in boot.parts}

    def proves(self, policy):
        return bool(self.quotes and policy) and not (
            self.overflowed or self.not_quoted or self.never_quoted or self.without_event_log)

    def compare_policy(self, boot, policy):
        for register, values in policy:
            told = False
            for index, others, ima in boot.quotes:
                value = ima if register == IMA_REGISTER else dict(others).get(register)
                if value is None:
                    self.not_quoted = True
                elif value not in values and not told:
                    self.find("pcr_policy_violated", f"entry {index} quotes {value.hex()} of register {register}", index)
                    told = True

    def follows(self, index, body, known, begun):
        """True if a part begins a log or goes on where the parts before it end, None if these are not known, else False."""
        at = body["from"]
        if at == 0 or at == known:
            return True
        if known is None and (self.is_part or begun):
            return None
        self.malformed(index, body, f"it goes on at byte {at}, the parts before it end at byte {known or 0}")
        return False

    def malformed(self, index, body, why):
        self.find("measured_malformed", f"entry {index}: what it names as {body['log']} is not one: {why}", index)

    def mismatch(self, index, register):
        self.find("measured_mismatch", f"register {register} as entry {index} quotes it is not what the log gives", index)

    def event_log(self, boot, content):
        """The registers of the last whole event log, if no log was wrong; boot.start is where the kernel's list begins."""
        boot.start = START
        known, begun, replayed, wrong, state = None, False, 0, False, None
        judged, told = set(), set()
        for index, body in boot.parts:
            if body["log"] != "event_log":
                continue
            if body["from"] == 0 and body["complete"]:
                if body["content"]["sha256"] in judged:
                    continue
                judged.add(body["content"]["sha256"])
            size = None if known is None else len(known)
            before, known, was_begun, begun = known, None, begun, True
            follows = self.follows(index, body, size, was_begun)
            if not follows:
                wrong = wrong or follows is False
                continue
            if replayed == EVENT_LOGS_MAX:
                state = None
                continue
            data = content(body)
            if data is None:
                continue
            data = (before if body["from"] else b"") + data
            try:
                if len(data) > EVENT_LOG_BYTES_MAX:
                    raise Unusable("longer than is read")
                known = data
                if not body["complete"]:
                    continue
                replayed += 1
                registers = replay_event_log(data)
            except Unusable:
                known, state = None, None
                continue
            except Refused as why:
                known, wrong = None, True
                self.malformed(index, body, why)
                continue
            state, boot.start = registers, registers[IMA_REGISTER]
            for register in OF_THE_EVENT_LOG:
                differs = [at for at, others, _ in boot.quotes
                           if dict(others).get(register, registers[register]) != registers[register]]
                wrong = wrong or bool(differs)
                if differs and register not in told:
                    told.add(register)
                    self.mismatch(differs[0], register)
        return None if wrong else state

    def ima(self, boot, content):
        reached = {ima: ima == boot.start for _, _, ima in boot.quotes if ima is not None}
        due, told, replay, begun = 0, False, None, False

        def each(value):
            if value in reached:
                reached[value] = True

        for index, body in boot.parts:
            if body["log"] != "ima":
                continue
            before, replay, was_begun, begun = replay, None, begun, True
            if not self.follows(index, body, before.size if before else None, was_begun):
                continue
            data = content(body)
            if data is None:
                continue
            own = before if body["from"] else Ima(boot.start)
            if own.size + len(data) > IMA_BYTES_MAX:
                continue
            try:
                own.part(data, each)
                if body["complete"] and own.begun:
                    raise Refused("the measurement list ends within an entry")
            except Refused as why:
                self.malformed(index, body, why)
                continue
            replay = own
            while body["complete"] and due < len(boot.quotes) and boot.quotes[due][0] < index:
                at, _, value = boot.quotes[due]
                due += 1
                if value is not None and not reached[value] and not told:
                    told = True
                    self.mismatch(at, IMA_REGISTER)
