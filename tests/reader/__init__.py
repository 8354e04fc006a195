"""The parts of verify.py: a second reader of the evidence format, from docs/FORMAT.md alone."""
