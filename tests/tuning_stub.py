"""A tuner that searches nothing: its times follow from the case and the config alone."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Generator, Iterable, Mapping
from typing import Any

from kernelpkg.configs.store import config_id
from kernelpkg.jobs.pool import Job, JobOutcome

MACHINE = {
    "gpu": "NVIDIA H200",
    "driver": "570.1",
    "torch": "2.11.0",
    "triton": "3.6.0",
    "helion": "1.4.0",
}

DEFAULT = {"block_sizes": [64], "num_warps": 4}


def found_for(case: Mapping[str, Any]) -> dict[str, Any]:
    """The config that the search of a case finds."""
    size = max(value for value in case.values() if type(value) is int)
    return {"block_sizes": [32], "num_warps": 1 << (size.bit_length() % 5)}


def ms_of(case: Mapping[str, Any], config: Mapping[str, Any]) -> float:
    """The milliseconds of a config: those of the one that the search finds are the least."""
    if config_id(config) == config_id(found_for(case)):
        return 0.004
    digest = hashlib.sha256((config_id(case) + config_id(config)).encode()).digest()
    return 0.005 + digest[0] / 100_000


def perform(payload: Mapping[str, Any]) -> dict[str, Any]:
    """Do a job as a worker would."""
    time.sleep(payload.get("sleep", 0))
    case, old = payload["case"], payload["old"]
    if payload["kind"] == "timed":
        configs = [*payload["configs"], DEFAULT, *([old] if old else [])]
        known = {config_id(config): config for config in configs}
        ms = {text: ms_of(case, config) for text, config in known.items()}
        base = ms[config_id(old)] if old else 1.0
        return {
            "configs": known,
            "tried": list(known),
            "ms": ms,
            "ratios": {text: value / base for text, value in ms.items()},
            "noise": 0.01,
            "wrong": {},
            "old": config_id(old) if old else None,
            "default": config_id(DEFAULT),
        }
    configs = {"new": found_for(case), "default": DEFAULT} | ({"old": old} if old else {})
    ms = {side: ms_of(case, config) for side, config in configs.items()}
    ratios = {side: value / ms["old"] for side, value in ms.items()} if old else {}
    return {
        "configs": configs,
        "ms": ms,
        "ratios": ratios,
        "noise": 0.01,
        "wrong": {},
        "found": [found_for(case)],
    }


def run_here(
    function: Callable[[Mapping[str, Any]], Any] = perform, stop: int | None = None
) -> Callable[[Iterable[Job]], Generator[JobOutcome, None, None]]:
    """Do jobs in this process, one after the other; Ctrl-C comes before job number `stop`."""

    def run(jobs: Iterable[Job]) -> Generator[JobOutcome, None, None]:
        for number, job in enumerate(jobs):
            if number == stop:
                raise KeyboardInterrupt
            found = function(job.payload)
            if isinstance(found, JobOutcome):
                yield found
            else:
                yield JobOutcome(job=job, status="done", value=found, device="0", seconds=1.0)

    return run
