"""Files of kept entries: FORMAT.md section 4.2, and what a log that was pruned must still hold: section 18."""

import zlib

from reader.basics import Refused
from reader.profile import KINDS

MAGIC = b"affiant/kept/v1\n"
WIDTH = 256
KEPT_BYTES_MAX = 64 << 20
INFLATED_BYTES_MAX = 128 << 20
BOUNDS_MAX = 1 << 20
HEIGHT_MAX = 8
KEPT_KINDS = ("issued", "revoked", "workload", "process")


def bundles_of(data):
    """The bundles of a file, each a list of items: an entry, or (height, hash)."""
    at = len(MAGIC)
    count = int.from_bytes(data[at:at + 2], "big") if len(data) >= at + 2 else 0
    if not data.startswith(MAGIC) or not 1 <= count <= WIDTH:
        raise Refused("it does not begin as a file of kept entries")
    items = inflate(data[at + 2:])
    bundles, at = [], 0
    for _ in range(count):
        at, bundle = bundle_at(items, at)
        bundles.append(bundle)
    if at != len(items):
        raise Refused("something follows the last bundle")
    return bundles


def bundle_at(items, at):
    """Where the bundle that begins here ends, and its items."""
    bundle, place, before = [], 0, None
    while place < WIDTH:
        size = int.from_bytes(items[at:at + 2], "big")
        end = at + 2 + size if size else at + 35
        if at + 2 > len(items) or end > len(items):
            raise Refused("it ends inside a bundle")
        if size:
            bundle.append(items[at + 2:end])
            place, before = place + 1, None
        else:
            height = items[at + 2]
            if height > HEIGHT_MAX or place % (1 << height):
                raise Refused("a hash stands where no complete subtree of its height begins")
            place += 1 << height
            if before == height and place % (2 << height) == 0:
                raise Refused("two hashes stand where one would do")
            bundle.append((height, items[at + 3:end]))
            before = height
        at = end
    return at, bundle


def inflate(stream):
    state = zlib.decompressobj()
    try:
        data = state.decompress(stream, INFLATED_BYTES_MAX + 1)
    except zlib.error as error:
        raise Refused(f"not a zlib stream: {error}") from error
    if not state.eof or state.unused_data or len(data) > INFLATED_BYTES_MAX:
        raise Refused("not one whole zlib stream")
    return data


class Pruning:
    """What is withheld, and what permits it."""

    def __init__(self):
        self.count, self.first, self.past = 0, None, 0
        self.permit = None  # (index, first, kept, H) of the latest that is valid
        self.permits = 0
        self.by_kind, self.statement, self.open = 0, 0, None
        self.bounds = {}  # by the bundle that they stand before

    def bound(self, index):
        if index % WIDTH == 0 and self.count and len(self.bounds) < BOUNDS_MAX:
            self.bounds[index // WIDTH] = (self.by_kind, self.statement)

    def before(self, first):
        """What stood before the entry `first` of a bundle; None if it is too far behind the first withheld entry."""
        if not self.bounds or first // WIDTH < next(iter(self.bounds)):
            return 0, 0
        return self.bounds.get(first // WIDTH)

    def withheld(self, index, count):
        self.bound(index)
        if self.first is None:
            self.first = index
        self.count += count
        self.past = index + count

    def entry(self, index, entry):
        kind, body = entry["kind"], entry["body"]
        self.bound(index)
        control = KINDS[kind][0]
        if control or kind in KEPT_KINDS:
            self.by_kind += 1
        if kind in ("heartbeat", "disarmed"):
            if self.open != entry["boot"]:
                self.statement = index
            self.open = entry["boot"] if kind == "heartbeat" else None
        elif control:
            self.open = None
        if kind == "pruned":
            first = body["first"]
            if first % WIDTH == 0 and first <= entry["i"] and (self.permit is None or first >= self.permit[1]):
                bound = self.before(first)
                self.permit = (entry["i"], first, body["kept"], first if bound is None else bound[1])
                self.permits += 1

    def permitted(self):
        return self.permits, self.permit[3] if self.permit else 0

    def finish(self, out):
        """Whether sessions are still to be judged."""
        if self.first is None:
            return False
        out.note("pruned", f"{self.count} entries between {self.first} and {self.past} are not kept any more")
        if self.permit is None or self.past > self.permit[1]:
            index = self.first if self.permit is None else self.permit[1]
            out.find("pruned_unrecorded", f"entries from {index} on are not kept, and nothing says so", index)
            return False
        index, first, kept, statement = self.permit
        bound = self.before(first)
        if bound is None:
            out.note("kept_unjudged", "whether all that must be kept is there is not judged")
            return True
        if bound[0] != kept:
            out.find("kept_omitted", f"entry {index} says that {kept} are kept for their kind, there are {bound[0]}", index)
        if self.past > statement:
            out.find("kept_omitted", f"entries after the last statement, {statement}, are not kept", index)
        return True
