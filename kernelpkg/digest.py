"""Digests: canonical bytes to "sha256-…"."""

from __future__ import annotations

import hashlib
import json
from typing import Any


def digest_bytes(data: bytes) -> str:
    """Return "sha256-" and the 64 hexadecimal digits of the data's SHA-256."""
    return f"sha256-{hashlib.sha256(data).hexdigest()}"


def digest_value(value: Any) -> str:
    """Return the digest of a JSON value, whatever the order of its keys."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return digest_bytes(text.encode())
