"""`vendor` as a whole process: the first pack into a scratch tree, against an import of PyTorch.

The tree has as much of vLLM's sources as vendoring looks at. `first` writes every file, `again`
finds them all there, and `check` writes nothing.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from report import finish, options, target
from timing import interleave, per_call

MOST = 1.0
"""The target, in seconds."""

ROOT = Path(__file__).parents[1]

TREE = {
    "_version.py": 'version = "0.33.0"\n',
    "utils/import_utils.py": "def has_helion(): ...\n",
    "kernels/helion/register.py": (
        "def register_kernel(op_name=None, *, config_picker=None, fake_impl=None, "
        "mutates_args=None, helion_settings=None, input_generator=None): ...\n"
    ),
    "kernels/helion/case_key.py": (
        "class CaseKey(dict):\n    def default(cls): ...\n    def is_default(self): ...\n"
    ),
    "kernels/helion/config_manager.py": (
        "class ConfigManager:\n    def get_platform_configs(self): ...\n"
    ),
    "kernels/helion/utils.py": ("_GPU_NAME_ALIASES = {}\ndef canonicalize_gpu_name(name): ...\n"),
    "kernels/helion/ops/__init__.py": "",
}


def plant(into: Path) -> None:
    """Make a directory a tree that holds nothing of a pack."""
    shutil.rmtree(into, ignore_errors=True)
    for file, text in TREE.items():
        path = into / "vllm" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def run(*arguments: str) -> None:
    """Run Python with arguments to its end; raises CalledProcessError where it fails."""
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    subprocess.run(
        [sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL, env=environment
    )


def main() -> int:
    """Time the command in its three states, and what it is held against, in turns."""
    parser = options(__doc__)
    parser.add_argument("--rounds", type=int, default=11)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        fresh, kept = Path(scratch, "fresh"), Path(scratch, "kept")
        plant(kept)
        words = ["-m", "kernelpkg", "vendor", "--root", str(ROOT), "--into"]
        run(*words, str(kept))

        def first() -> float:
            plant(fresh)
            return per_call(lambda: run(*words, str(fresh)), 1)

        times = interleave(
            {
                "pass": lambda: per_call(lambda: run("-c", "pass"), 1),
                "import torch": lambda: per_call(lambda: run("-c", "import torch"), 1),
                "first": first,
                "again": lambda: per_call(lambda: run(*words, str(kept)), 1),
                "check": lambda: per_call(lambda: run(*words, str(kept), "--check"), 1),
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
    states = ("first", "again", "check")
    targets = [target(f"{name}, median", times[name].median / 1e6, MOST, "s") for name in states]
    finish("vendor, seconds of a whole process", rows, targets, chosen.json)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
