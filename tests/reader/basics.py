"""What every part of the reader needs: how bytes are refused, and base64."""

import base64
import binascii


class Refused(Exception):
    """Bytes that are not what the format allows."""


class CannotCheck(Exception):
    """Nothing can be said of the log: exit code 2."""


def decode_base64(encoded):
    """RFC 4648 section 4: padding required, unused bits zero, nothing but the alphabet."""
    try:
        decoded = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        return None
    return decoded if base64.b64encode(decoded) == encoded else None
