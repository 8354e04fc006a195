"""Validates exported OCSF events: `ocsf.py FILE [--schemas DIR]`, FILE with one JSON object per line.

With a folder of OCSF 1.9 schemas (`<class_uid>_<name>.schema.json`) every event is checked against the schema of its class. Without
one, the newest version that the PyPI package `ocsf-json-schema` carries (1.8) checks the part of each event that it knows, and the
output says so. Exit code 0 when every event is valid, 1 when one is not, 2 when there is nothing to validate.
"""

import argparse
import collections
import json
import pathlib
import sys

import jsonschema

# The newest that the pinned package carries.
PACKAGED_VERSION = "1.8.0"
# Complaints shown; the count is of all.
SHOWN_MAX = 20


class Published:
    """The published schemas of version 1.9, from files."""

    def __init__(self, directory: pathlib.Path):
        self.described = f"OCSF 1.9 ({len(list(directory.glob('*.schema.json')))} class schemas)"
        self._directory = directory
        self._validators = {}

    def complaints(self, event: dict):
        """Every broken rule of one event."""
        uid = event.get("class_uid")
        if uid not in self._validators:
            files = list(self._directory.glob(f"{uid}_*.schema.json"))
            schema = json.loads(files[0].read_text()) if len(files) == 1 else None
            self._validators[uid] = jsonschema.Draft202012Validator(schema) if schema else None
        validator = self._validators[uid]
        if validator is None:
            return [f"no schema for class_uid {uid!r}"]
        return [f"{error.json_path}: {error.message[:200]}" for error in validator.iter_errors(event)]


class Packaged:
    """The part of an event that version 1.8 knows: attributes it does not know are counted, not checked."""

    def __init__(self):
        from ocsf_json_schema import OcsfJsonSchemaEmbedded, get_ocsf_schema

        self.described = f"the part that OCSF {PACKAGED_VERSION} knows (no OCSF 1.9 schemas here)"
        self.unknown = collections.Counter()
        self._schema = OcsfJsonSchemaEmbedded(get_ocsf_schema(version=PACKAGED_VERSION))
        self._validators = {}

    def complaints(self, event: dict):
        """Every broken rule of one event, unknown attributes aside."""
        profiles = tuple(event.get("metadata", {}).get("profiles", []))
        key = (event.get("class_uid"), profiles)
        if key not in self._validators:
            try:
                name = self._schema.lookup_class_name_from_uid(class_uid=key[0])
                known = self._known_profiles(profiles)
                schema = self._schema.get_class_schema(class_name=name, profiles=known)
                self._validators[key] = jsonschema.Draft202012Validator(schema)
            except (ValueError, KeyError) as error:
                return [f"no schema for class_uid {key[0]!r}: {error}"]
        found = []
        for error in self._validators[key].iter_errors(event):
            if error.validator == "additionalProperties":
                self.unknown[f"{error.json_path}: {error.message[:120]}"] += 1
            else:
                found.append(f"{error.json_path}: {error.message[:200]}")
        return found

    def _known_profiles(self, profiles):
        known = []
        for profile in profiles:
            try:
                self._schema.get_class_schema(class_name="process_activity", profiles=[profile])
                known.append(profile)
            except (ValueError, KeyError):
                self.unknown[f"profile {profile}"] += 1
        return known


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=pathlib.Path)
    parser.add_argument("--schemas", type=pathlib.Path)
    arguments = parser.parse_args()

    if arguments.schemas and any(arguments.schemas.glob("*.schema.json")):
        schemas = Published(arguments.schemas)
    else:
        schemas = Packaged()

    classes = collections.Counter()
    invalid = 0
    shown = 0
    with arguments.file.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            event = json.loads(line)
            classes[event.get("class_uid")] += 1
            complaints = schemas.complaints(event)
            invalid += bool(complaints)
            for complaint in complaints:
                if shown < SHOWN_MAX:
                    print(f"line {number}, class {event.get('class_uid')}: {complaint}")
                    shown += 1
    if not classes:
        print("no events", file=sys.stderr)
        return 2
    counts = ", ".join(f"{count} of class {uid}" for uid, count in sorted(classes.items()))
    print(f"{sum(classes.values())} events ({counts}) against {schemas.described}: {invalid} invalid")
    for attribute, count in getattr(schemas, "unknown", {}).items():
        print(f"  not checked, {count} times: {attribute}")
    return 1 if invalid else 0


if __name__ == "__main__":
    sys.exit(main())
