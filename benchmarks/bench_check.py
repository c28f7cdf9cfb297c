"""Check level 0 of the first pack as a process, against imports of Python and PyTorch.

    python benchmarks/bench_check.py      # 1 minute

`pass` is what any Python process takes, and `import torch` what the check would take at least if
it imported PyTorch. `list` reads the same pack, and checks none of its configs against the rest.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench_cli import run
from report import finish, options, target
from timing import interleave, per_call

MOST = 0.5
"""The target of level 0, in seconds."""

PROCESSES = {
    "pass": ["-c", "pass"],
    "import torch": ["-c", "import torch"],
    "list": ["-m", "kernelpkg", "list"],
    "check": ["-m", "kernelpkg", "check"],
    "check of one op": ["-m", "kernelpkg", "check", "silu_mul_fp8"],
}


def main() -> int:
    """Time every process in turns."""
    parser = options(__doc__)
    parser.add_argument("--rounds", type=int, default=11)
    chosen = parser.parse_args()
    times = interleave(
        {
            name: lambda arguments=arguments: per_call(lambda: run(arguments), 1)
            for name, arguments in PROCESSES.items()
        },
        rounds=1 if chosen.quick else chosen.rounds,
        warm=0 if chosen.quick else 1,
    )
    rows = [
        {
            "process": name,
            "least": time.least / 1e6,
            "median": time.median / 1e6,
            "over_pass": time.least / times["pass"].least,
        }
        for name, time in times.items()
    ]
    targets = [target("check --level 0, median", times["check"].median / 1e6, MOST, "s")]
    finish("check, seconds of a whole process", rows, targets, chosen.json)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
