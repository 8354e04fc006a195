"""Committed values and the lines that disclose them: docs/FORMAT.md, section 16."""

import hashlib

from reader.basics import Refused
from reader.profile import commitments, decode_disclosure

ERASED_MAX = 1_000_000
VALUES_MAX = 1 << 22


class Values:
    """Committed values: each has a line that hashes to its commitment, or an `erased` entry says why not."""

    def __init__(self, find):
        self.find = find
        self.awaited, self.at = [], 0  # (index, field, commitment), and how many of them were dealt with
        self.erased = set()
        self.withheld = 0  # the index after the last withheld entry
        self.indexes = set()  # of entries with committed values

    def entry(self, entry):
        if entry["kind"] == "erased" and len(self.erased) < ERASED_MAX:
            self.erased.add((entry["body"]["of"], entry["body"]["field"]))
        for field, commitment in commitments(entry):
            self.awaited.append((entry["i"], field, commitment))
            self.indexes.add(entry["i"])
        if len(self.awaited) > VALUES_MAX:
            raise Refused("too many committed values")

    def line(self, data):
        index, field, salt, text = decode_disclosure(data)
        if index < self.withheld and index not in self.indexes:
            return
        while self.at < len(self.awaited) and self.awaited[self.at][0] < index:
            self.absent()
        found = self.at
        while found < len(self.awaited) and self.awaited[found][0] == index and self.awaited[found][1] != field:
            found += 1
        if found == len(self.awaited) or self.awaited[found][0] != index:
            self.find("commitment_wrong", f"entry {index} committed no {field!r}", index)
            return
        while self.at < found:
            self.absent()
        self.at += 1
        preimage = b"affiant/commitment/v1" + salt + len(field).to_bytes(4, "big") + field + text
        if hashlib.sha256(preimage).digest() != self.awaited[found][2]:
            self.find("commitment_wrong", f"entry {index} committed something else as {field!r}", index)

    def absent(self):
        index, field, _ = self.awaited[self.at]
        self.at += 1
        if (index, field) not in self.erased:
            self.find("value_absent", f"entry {index}: the text of {field!r} is not there", index)

    def finish(self):
        while self.at < len(self.awaited):
            self.absent()
