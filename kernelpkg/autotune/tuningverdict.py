"""Which config a case gets: the new one, the one before, or the default, from measured times."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from attrs import frozen

from kernelpkg.autotune.store import TuningOutcome
from kernelpkg.manifest.helion_config import Config

MARGIN: Final = 0.02
"""By how much a config must be faster than the one it replaces, over the noise.

A change that gains less is not worth a compilation and a line of a diff.
"""


@frozen(kw_only=True)
class Trial:
    """The configs of one case that were held against each other in one run.

    All are by side: "new" is the best that the search found, "old" what the rules pick now, and
    "default" the default; a side that there is not, or that does not work, is left out of `ms`.
    `ratios` are medians of the paired times to the old one, `noise` the share of a time that means
    nothing, and `wrong` says what is wrong with a side.
    """

    configs: Mapping[str, Config]
    ms: Mapping[str, float]
    ratios: Mapping[str, float]
    noise: float
    wrong: Mapping[str, str]

    @classmethod
    def of(cls, value: Mapping[str, Any]) -> Trial:
        """Return the trial that a worker sent."""
        return cls(**{name: value[name] for name in ("configs", "ms", "ratios", "noise", "wrong")})

    def to_json(self) -> dict[str, Any]:
        """Return what `of` reads."""
        return {
            "configs": {side: dict(config) for side, config in self.configs.items()},
            "ms": dict(self.ms),
            "ratios": dict(self.ratios),
            "noise": self.noise,
            "wrong": dict(self.wrong),
        }


@frozen(kw_only=True)
class Verdict:
    """The side that a case gets, None where none works, and how that was reached."""

    outcome: TuningOutcome
    side: str | None
    reason: str


def judge(trial: Trial, margin: float) -> Verdict:
    """Choose the side of a case.

    An old config that works is replaced only by one that takes less than 1 - margin - noise of its
    time, in the same run. Where there is none, the faster of the new and the default one is taken.
    """
    told = "; ".join(f"the {side} config is wrong: {why}" for side, why in trial.wrong.items())
    others = [side for side in ("new", "default") if side in trial.ms]
    best = min(others, key=lambda side: trial.ms[side], default=None)
    if "old" in trial.ms:
        needed = 1 - margin - trial.noise
        faster = [side for side in others if trial.ratios[side] < needed]
        if not faster:
            return Verdict(outcome="kept", side="old", reason=told)
        best = min(faster, key=lambda side: trial.ratios[side])
    if best is None:
        return Verdict(outcome="wrong", side=None, reason=told or "no config could be timed")
    return Verdict(outcome="tuned", side=best, reason=told)
