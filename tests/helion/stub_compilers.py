"""Compilers for tests: what `check_compiling` starts in place of the real one."""

from __future__ import annotations

import os
import signal
import time


def hungry(payload):
    """Needs more shared memory than any GPU has."""
    return {
        "registers": 255,
        "shared": 300_000,
        "spills": 8,
        "warps": payload["options"]["num_warps"],
    }


def fragile(payload):
    """Crashes over what has eight warps, as a compiler with a bug does."""
    if payload["options"]["num_warps"] == 8:
        os.kill(os.getpid(), signal.SIGSEGV)
    return {"registers": 32, "shared": 0, "spills": 0, "warps": 4}


def endless(payload):
    """Never ends."""
    time.sleep(600)


def confused(payload):
    """Fails in a way that nobody foresaw."""
    raise LookupError("no such pass")
