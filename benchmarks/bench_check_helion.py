"""Check levels 1 and 2 of the first pack, imports apart: seconds per variant, config and core.

    python benchmarks/bench_check_helion.py      # 3 minutes

Level 1 runs in one process, which has imported Helion before. Level 2 has an empty Triton cache;
its time holds the start of its processes, which import Helion and Triton.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from report import finish, options, target

MOST_VARIANT, MOST_CONFIG = 1.0, 1.5
"""The targets: seconds per variant, and per distinct config and variant that it serves."""

QUICK = "silu_mul_fp8"


def main() -> int:
    """Time both levels once: each is minutes of work, and nothing is left of it to time again."""
    chosen = options(__doc__).parse_args()
    from kernelpkg.check.level1 import check_bindings
    from kernelpkg.check.level2 import check_compiling
    from kernelpkg.packs import find
    from kernelpkg.packs.read import read_kernel, read_pack

    root = find.own_root()
    pack = read_pack(root, "kernelpkg")
    names = [QUICK] if chosen.quick else pack.kernels
    specs = [read_kernel(root, name) for name in names]
    begin = time.perf_counter()
    bound = check_bindings(pack, specs, jobs=1)
    level_1 = time.perf_counter() - begin
    cores = 1 if chosen.quick else os.cpu_count() or 1
    with tempfile.TemporaryDirectory() as cache:
        os.environ["TRITON_CACHE_DIR"] = cache
        begin = time.perf_counter()
        compiled = check_compiling(pack, specs, jobs=cores)
        level_2 = time.perf_counter() - begin
    variants, sources = bound.counts["variants"], len(compiled.counts["resources"])
    rows = [
        {"level": 1, "of": f"{variants} variants", "seconds": level_1, "cores": 1},
        {"level": 2, "of": f"{sources} configs", "seconds": level_2, "cores": cores},
    ]
    targets = [
        target("level 1, per variant and core", level_1 / variants, MOST_VARIANT, "s"),
        target("level 2, per config and core", level_2 * cores / sources, MOST_CONFIG, "s"),
    ]
    finish("check of levels 1 and 2, imports apart", rows, targets, chosen.json)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
