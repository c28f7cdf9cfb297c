"""Copied files: the tuned cases of one platform that stand under the name of another too."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import combinations
from typing import Final

from attrs import frozen

from kernelpkg.check.checkedfile import CheckedFile
from kernelpkg.configs import platforms
from kernelpkg.configs.store import config_id
from kernelpkg.errors import Problem, counted
from kernelpkg.manifest.spec import PackSpec

SHARE: Final = Fraction(9, 10)
"""The share of the smaller file's cases that must be equal in a copy."""

TIMES: Final = 8
"""The fewest measured times that make a copy: each agrees by chance in one of ten, at most.

GPUs time in steps of 32 ns; a kernel of 4 us has about so many of them within its noise.
"""

CASES: Final = 16
"""The fewest equal cases that make a copy, where no times tell."""

CONFIGS: Final = 8
"""The fewest distinct configs of those: tuners that choose among few agree without copying."""


@frozen(kw_only=True)
class Copy:
    """Two files that say the same: how many cases, with how many configs, and whether times do."""

    first: CheckedFile
    second: CheckedFile
    cases: int
    of: int
    configs: int
    times: int


def copies(files: Sequence[CheckedFile]) -> Iterator[Copy]:
    """Yield the pairs of files of one kernel of which one is a copy of the other.

    Times decide where both files have them: no two GPUs take the same nanoseconds in case after
    case, and those that do not have their configs from measurements of their own.
    """
    for first, second in combinations(files, 2):
        found = _compare(first, second)
        if found is not None:
            yield found


def _compare(first: CheckedFile, second: CheckedFile) -> Copy | None:
    rows = first.by_row.keys() & second.by_row
    common = [(first.by_row[row], second.by_row[row]) for row in rows]
    smaller = min(len(first.rows), len(second.rows))
    most = math.ceil(SHARE * smaller)
    times = [(first.file.cases[a].ms, second.file.cases[b].ms) for a, b in common]
    measured = [(a, b) for a, b in times if a is not None and b is not None]
    same_times = sum(a == b for a, b in measured)
    ids = [list(map(config_id, file.file.configs)) for file in (first, second)]
    same = [
        ids[0][first.file.cases[a].config]
        for a, b in common
        if ids[0][first.file.cases[a].config] == ids[1][second.file.cases[b].config]
    ]
    if len(measured) >= TIMES:
        copied = same_times >= max(TIMES, most)
    else:
        equal = len(same) >= max(CASES, most)
        copied = equal and len(set(same)) >= CONFIGS and same_times == len(measured)
    if not copied:
        return None
    return Copy(
        first=first,
        second=second,
        cases=len(same),
        of=smaller,
        configs=len(set(same)),
        times=same_times,
    )


def copy_findings(pack: PackSpec, files: Sequence[CheckedFile]) -> Iterator[Problem]:
    """Yield a finding for each copy, at the file that is known to be one, or else the first."""
    for copy in copies(files):
        at, other = copy.first, copy.second
        if _gpu(pack, at) == at.platform and _gpu(pack, other) == at.platform:
            at, other = other, at
        told = _gpu(pack, at) == other.platform
        what = f"a copy of that of {other.platform}"
        if not told:
            what += ", or that one of this"
        measured = f", and {counted(copy.times, 'measured time')}" if copy.times else ""
        message = (
            f"the file is {what}: {copy.cases} of {counted(copy.of, 'case')} have the same "
            f"config ({counted(copy.configs, 'distinct config')}{measured}) in {other.shown}; "
            "tune on each GPU, or remove the copy, whose calls then borrow"
        )
        yield at.finding("KP220", message)


def _gpu(pack: PackSpec, tuned: CheckedFile) -> str | None:
    """Return the platform that a file says it was tuned on."""
    try:
        gpu = platforms.resolve(
            tuned.file.tuned_with["gpu"], extra=pack.platforms, variants=pack.variants
        )
    except (KeyError, ValueError):
        return None
    return gpu.name
