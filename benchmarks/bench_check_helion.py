"""Check levels 1 and 2 of the first pack, imports apart: seconds per variant, source and core.

    python benchmarks/bench_check_helion.py      # 5 minutes

Level 1 runs in one process, which has imported Helion before. Level 2 is timed without the build of
the pack, with an empty Triton cache, and with it; the former holds the start of its processes,
which import Helion and Triton. By other tools than those here, the build is not looked at.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from report import finish, options, target

MOST_VARIANT, MOST_SOURCE, MOST_BUILT = 1.0, 1.2, 5.0
"""The targets: seconds per variant, per distinct source, and of a pack that is built."""

QUICK = "fused_qk_norm_rope"


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
        bare = Path(cache, "pack")
        for folder in ("manifests", "kernels", "configs"):
            shutil.copytree(root / folder, bare / folder)
        unbuilt = [read_kernel(bare, name) for name in names]
        begin = time.perf_counter()
        compiled = check_compiling(read_pack(bare, "kernelpkg"), unbuilt, jobs=cores)
        level_2 = time.perf_counter() - begin
        begin = time.perf_counter()
        judged = check_compiling(pack, specs, jobs=cores)
        built = time.perf_counter() - begin
    assert judged.counts["resources"] == compiled.counts["resources"]
    variants, sources = bound.counts["variants"], compiled.counts["sources"]
    rows = [
        {"level": 1, "of": f"{variants} variants", "seconds": level_1, "cores": 1},
        {"level": 2, "of": f"{sources} sources", "seconds": level_2, "cores": cores},
        {"level": 2, "of": "a build", "seconds": built, "cores": 1},
    ]
    targets = [
        target("level 1, per variant and core", level_1 / variants, MOST_VARIANT, "s"),
        target("level 2, per source and core", level_2 * cores / sources, MOST_SOURCE, "s"),
        target("level 2 of a pack that is built", built, MOST_BUILT, "s"),
    ]
    finish("check of levels 1 and 2, imports apart", rows, targets, chosen.json)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
