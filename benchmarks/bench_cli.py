"""Commands as whole processes, against imports of Python and PyTorch.

`pass` is what any Python process takes, and `import torch` what a command would take at least if
it imported PyTorch.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from report import finish, options, target
from timing import interleave, per_call

MOST = 0.3
"""The target, in seconds, of commands that answer one question."""

MOST_OF_ALL = 0.6
"""The target of those that look at all calls of a pack."""

ROOT = Path(__file__).parents[1]

COMMANDS = {
    "explain": "explain silu_mul_fp8 num_tokens=300 intermediate_size=5000 --platform nvidia_h200",
    "list": "list",
    "coverage": "coverage",
    "schema": "schema",
    "check": "check --level 0",
    "--help": "--help",
    "explain a code": "explain KP107",
}

BASELINES = {"pass": "pass", "import torch": "import torch"}


def run(arguments: list[str]) -> None:
    """Run Python with arguments to its end; raises CalledProcessError where it fails."""
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    subprocess.run(
        [sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL, env=environment
    )


def main() -> int:
    """Time every command and every baseline in turns."""
    parser = options(__doc__)
    parser.add_argument("--rounds", type=int, default=11)
    chosen = parser.parse_args()
    processes = {name: ["-c", code] for name, code in BASELINES.items()}
    processes |= {name: ["-m", "kernelpkg", *words.split()] for name, words in COMMANDS.items()}
    times = interleave(
        {
            name: lambda arguments=arguments: per_call(lambda: run(arguments), 1)
            for name, arguments in processes.items()
        },
        rounds=1 if chosen.quick else chosen.rounds,
        warm=0 if chosen.quick else 1,
    )
    empty = times["pass"].least
    rows = [
        {
            "process": name,
            "least": time.least / 1e6,
            "median": time.median / 1e6,
            "over_pass": time.least / empty,
        }
        for name, time in times.items()
    ]
    targets = [
        target(
            f"{name}, median",
            times[name].median / 1e6,
            MOST_OF_ALL if name == "coverage" else MOST,
            "s",
        )
        for name in COMMANDS
    ]
    finish("cli, seconds of a whole process", rows, targets, chosen.json)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
