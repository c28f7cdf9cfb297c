"""Whether calls give equal bits whoever prepares and launches them, over the whole grid.

A build is made by the compilers of this machine, so that all modes mean one toolchain. Then four
modes answer every case of the manifests: code of the build or compiled at the call, each by the
launcher in C and by the one in Python. Exit status 1 where a case differs.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from unbuilt import unbuilt

USES = ("tune", "test", "bench")
MODES = {
    f"{code}, {launcher}": (code, launcher)
    for code in ("prebuilt", "compiled")
    for launcher in ("c", "python")
}


def digests(name: str, root: Path, builds: str, device: str) -> dict[str, Any]:
    """Return a digest of what each case of an op leaves in its arguments and results."""
    import torch

    import kernelpkg
    from kernelpkg.bench.inputs import make_inputs
    from kernelpkg.manifest.cases import cases_of
    from kernelpkg.packs.read import read_kernel

    chosen = [Path(builds)] if builds else []
    found = kernelpkg.load(root=root, device=device, builds=chosen, strict=True)
    op, spec = getattr(torch.ops.kernelpkg, name), read_kernel(root, name)
    cases = {str(case): case for use in USES for case in cases_of(spec, use)}
    bits = {}
    for text, case in cases.items():
        args = make_inputs(spec, case, device=device)
        results = op(*args)
        hashed = hashlib.sha256()
        for value in (*args, *(results if isinstance(results, tuple) else (results,))):
            if isinstance(value, torch.Tensor):
                plain = value.contiguous().cpu().reshape(-1)
                hashed.update(plain.view(torch.uint8).numpy().tobytes())
        bits[text] = hashed.hexdigest()
    mode = next(str(kernel.mode) for kernel in found.kernels if kernel.name == name)
    fallbacks = dict(kernelpkg.get_registered_kernels()[f"kernelpkg::{name}"].fallbacks())
    return {"bits": bits, "mode": mode, "fallbacks": fallbacks}


def measure(name: str, mode: str, place: Path, device: str) -> dict[str, Any]:
    """Answer the cases of an op in a process of its own."""
    code, launcher = MODES[mode]
    given = str(place / "builds") if code == "prebuilt" else ""
    words = [sys.executable, "-W", "ignore", __file__, "--child", name, str(place / "unbuilt")]
    words += [given, device]
    environment = {**os.environ, "KERNELPKG_LAUNCHER": launcher, "KERNELPKG_BUILDS": given}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    line = next((ln for ln in done.stdout.splitlines() if ln.startswith("FOUND ")), None)
    if line is None:
        raise SystemExit(f"{name}, {mode}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(line.removeprefix("FOUND "))
    return found


def main() -> int:
    if sys.argv[1:2] == ["--child"]:
        name, root, builds, device = sys.argv[2:]
        print("FOUND " + json.dumps(digests(name, Path(root), builds, device)), flush=True)
        return 0
    from kernelpkg.packs import find
    from kernelpkg.packs.read import kernel_names

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--platform", default="nvidia_h200", help="what is built for")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--modes", nargs="+", choices=MODES, default=list(MODES), metavar="MODE")
    parser.add_argument("ops", nargs="*", help="all unless given")
    options = parser.parse_args()
    root = find.own_root()
    names = options.ops or list(kernel_names(root))
    differing = 0
    with tempfile.TemporaryDirectory() as made:
        place = Path(made)
        unbuilt(root, place)
        words = ["build", *names, "--root", str(root), "--platform", options.platform]
        words += ["--tests", "--jobs", str(options.jobs), "--out", str(place / "builds")]
        subprocess.run([sys.executable, "-m", "kernelpkg", *words], check=True)
        with ThreadPoolExecutor(options.jobs) as pool:
            asked = {
                (name, mode): pool.submit(measure, name, mode, place, options.device)
                for mode in reversed(options.modes)
                for name in names
            }
        found = {key: future.result() for key, future in asked.items()}
    for name in names:
        sides = {mode: found[name, mode] for mode in options.modes}
        first = sides[options.modes[0]]["bits"]
        others = [side["bits"] for side in sides.values()]
        unlike = [case for case in first if any(bits[case] != first[case] for bits in others)]
        differing += len(unlike)
        print(f"{name}: {len(first)} cases, {len(unlike)} differ")
        for mode, side in sides.items():
            print(f"  {mode}: {side['mode']}; fallbacks: {side['fallbacks'] or 'none'}")
        for case in unlike[:5]:
            print(f"  differs: {case}: " + ", ".join(bits[case][:8] for bits in others))
    return 1 if differing else 0


if __name__ == "__main__":
    raise SystemExit(main())
