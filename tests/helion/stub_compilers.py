"""Compilers for tests: what `check_compiling` and `make_build` start in place of the real one."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

from kernelpkg.files import digest_bytes


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


def hanging(payload):
    """Says which process it is, and never ends."""
    Path(payload["keep"], "started").write_text(str(os.getpid()))
    time.sleep(600)


def confused(payload):
    """Fails in a way that nobody foresaw."""
    raise LookupError("no such pass")


def made(payload):
    """Makes what the driver of tests takes for a binary, and says of it what Triton would say."""
    types, constants, divisible, parameters = [], {}, [], []
    for place, arg in enumerate(payload["args"]):
        if arg == 1:
            types.append("constexpr")
            constants[str(place)] = 1
            continue
        types.append("*fp32" if isinstance(arg, list) else "i32")
        parameters.append(8 if isinstance(arg, list) else 4)
        if (arg[1] if isinstance(arg, list) else arg) % 16 == 0:
            divisible.append(place)
    facts = [payload["text"], payload["name"], types, divisible, payload["options"]]
    data = b"\x7fELF\x02" + bytes(59) + json.dumps(facts, sort_keys=True).encode()
    code = {
        "types": types,
        "constants": constants,
        "divisible": divisible,
        "cubin": digest_bytes(data),
        "entry": payload["name"],
        "parameters": [*parameters, 8, 8],
        "shared": 0,
        "threads": 32 * payload["options"]["num_warps"],
    }
    Path(payload["keep"], code["cubin"]).write_bytes(data)
    return {"registers": 32, "shared": 0, "spills": 0, "warps": 4, "code": code}


def choosy(payload):
    """Makes what has four warps."""
    return made(payload) if payload["options"]["num_warps"] == 4 else {"error": "PTXAS: no"}


def scratchy(payload):
    """Makes what has four warps; the rest wants more of its launch than our launcher gives."""
    if payload["options"]["num_warps"] == 4:
        return made(payload)
    needs = {"registers": 32, "shared": 0, "spills": 0, "warps": 8}
    return {**needs, "absent": "its code asks for global_scratch_size=8"}


def crowded(payload):
    """Makes what has four warps; then there is no room for the rest."""
    return made(payload) if payload["options"]["num_warps"] == 4 else refused(payload)


def refused(payload):
    """Makes nothing, for the system refuses a file."""
    return {"refused": "the system refuses a file: OSError: no room"}


def hopeless(payload):
    """Makes nothing."""
    return {"error": "PTXAS: no"}
