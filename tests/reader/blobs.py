"""Contents beside the log that entries refer to: docs/FORMAT.md, section 16."""

import hashlib
import re

BLOB_BYTES_MAX = 64 << 20
BLOBS_MAX = 1 << 18


def blob_path(digest):
    return "blob/" + digest


def blob_digest(name):
    """The digest that the name of a member names, or None."""
    found = re.fullmatch(rb"blob/([0-9a-f]{64})", name)
    return found and found[1].decode()


def referred(entry):
    body = entry["body"]
    if entry["kind"] == "policy":
        return [body["set"]]
    if entry["kind"] == "measured":
        return [body["content"]]
    if entry["kind"] == "attestation_key":
        return body["certificates"] + body["ek_certificates"]
    return []


class Blobs:
    """Every reference of the entries, and what became of it."""

    def __init__(self, out, strict):
        self.out, self.strict = out, strict
        self.awaited = {}  # digest: {size: first entry}
        self.count, self.beyond = 0, None

    def entry(self, entry):
        for blob in referred(entry):
            digest, size = blob["sha256"], blob["size"]
            if size in self.awaited.get(digest, ()):
                continue
            if self.count < BLOBS_MAX:
                self.awaited.setdefault(digest, {})[size] = entry["i"]
                self.count += 1
            elif self.beyond is None:
                self.beyond = entry["i"]

    def judge(self, digest, content):
        """Whether the content is one that an entry refers to."""
        holds = False
        for size, index in sorted(self.awaited.pop(digest).items()):
            if content is None and self.strict:
                self.out.find("blob_absent", f"{blob_path(digest)} of entry {index} is not there", index)
            elif content is None:
                self.out.note("blob_absent", f"{blob_path(digest)} of entry {index} is not there")
            elif hashlib.sha256(content).hexdigest() != digest or len(content) != size:
                self.out.find("blob_altered", f"{blob_path(digest)} is not what entry {index} refers to", index)
            else:
                holds = True
        return holds

    def finish(self):
        for digest in sorted(self.awaited):
            self.judge(digest, None)
        if self.beyond is not None:
            self.out.note("blobs_unjudged", f"from entry {self.beyond} on there are too many blobs")
