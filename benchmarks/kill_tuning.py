"""Kills a tuning run with a stub tuner at random moments, and says what was lost.

Each run is a process that tunes the cases of a small pack; SIGKILL comes at a random moment of the
tuning, not of the imports before it, which take longer on a busy host.
After each kill the config file must be whole or not there, the saved results must open, and every
case that the run had told as saved must be among them. In the end an undisturbed run must finish
with the same bytes as one that was never killed.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from attrs import frozen

HERE = Path(__file__).resolve()
TESTS = HERE.parents[1] / "tests"

BEGUN = "begun"
TOKENS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048)


@frozen(kw_only=True)
class Lost:
    """What the kills did: how many there were, and each damage, in words."""

    kills: int
    between: int
    damages: tuple[str, ...]


def tune(root: Path, sleep: float, portfolio: int | None) -> None:
    """Tune the pack in this process, with a stub; tells each saved case on stdout."""
    sys.path.insert(0, str(TESTS))
    import tuning_stub

    from kernelpkg.autotune.run import autotune
    from kernelpkg.autotune.tune_op import TuningRequest
    from kernelpkg.configs import platforms
    from kernelpkg.configs.directories import ConfigDirectory
    from kernelpkg.packs.read import read_kernel, read_pack

    def perform(payload):
        return tuning_stub.perform({**payload, "sleep": sleep})

    print(BEGUN, flush=True)
    results = autotune(
        read_pack(root, "demo"),
        [read_kernel(root, "twice")],
        {},
        TuningRequest(case_timeout=60, portfolio=portfolio),
        target=ConfigDirectory(path=root / "configs", shown="configs", overlay=False),
        here=platforms.resolve("nvidia_h200"),
        machine=tuning_stub.MACHINE,
        date="2026-11-22",
        run_jobs=tuning_stub.run_here(perform),
        saved=lambda line: print(line.partition(":")[2].partition(":")[0].strip(), flush=True),
    )
    print("finished" if results.ok else f"not finished: {results.failures()}", flush=True)


def make_pack(root: Path) -> None:
    """Write the pack that is tuned."""
    sys.path.insert(0, str(TESTS))
    from conftest import write_pack

    grid = f"num_tokens = {list(TOKENS)}"
    write_pack(root).edit("kernels/twice/kernel.toml", "num_tokens = [1, 4]", grid)


def start(root: Path, sleep: float, portfolio: int | None) -> subprocess.Popen[bytes]:
    """Start a run, and wait until its tuning begins."""
    arguments = ["--run", str(root), "--sleep", str(sleep)]
    arguments += [] if portfolio is None else ["--portfolio", str(portfolio)]
    process = subprocess.Popen(
        [sys.executable, str(HERE), *arguments], stdout=subprocess.PIPE, bufsize=0
    )
    assert process.stdout is not None
    process.stdout.readline()
    return process


def damages(root: Path, told: set[str]) -> list[str]:
    """Return what is wrong after a kill; `told` are the cases that were told as saved."""
    import sqlite3

    from kernelpkg.configs import store as config_store

    found = []
    file = root / "configs" / "twice" / "nvidia_h200.json"
    in_file: set[str] = set()
    if file.exists():
        try:
            content = config_store.read(file, str(file), "twice", "nvidia_h200", ["num_tokens"], {})
            in_file = {f"case num_tokens={case.key['num_tokens']}" for case in content.cases}
        except Exception as error:
            found.append(f"config file: {error}")
    saved = root / "configs" / ".tuning" / "twice" / "nvidia_h200.sqlite3"
    in_saved: set[str] = set()
    if saved.exists():
        try:
            with sqlite3.connect(saved) as database:
                if database.execute("PRAGMA integrity_check").fetchone()[0] != "ok":
                    found.append("saved results: integrity_check")
                tables = database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
                if tables:
                    rows = database.execute("SELECT key FROM records").fetchall()
                    in_saved = {f"case num_tokens={json.loads(k)['num_tokens']}" for (k,) in rows}
            database.close()
        except sqlite3.DatabaseError as error:
            found.append(f"saved results: {error}")
    found += [f"{case} was told as saved, and is not there" for case in told - in_saved]
    found += [f"{case} is in the file, and was not saved" for case in in_file - in_saved]
    return found


def kill_often(kills: int, sleep: float, seed: int, portfolio: int | None = None) -> Lost:
    """Kill runs that often; whenever one finishes, its result is compared and a new one begins."""
    chance = random.Random(seed)
    found: list[str] = []
    done = between = 0
    with tempfile.TemporaryDirectory() as place:
        root, clean = Path(place, "killed"), Path(place, "clean")
        make_pack(clean)
        process = start(clean, sleep, portfolio)
        begin = time.monotonic()
        process.communicate()
        span = time.monotonic() - begin
        wanted = (clean / "configs/twice/nvidia_h200.json").read_bytes()
        make_pack(root)
        told: set[str] = set()
        while True:
            process = start(root, sleep, portfolio)
            if done < kills:
                try:
                    output, _ = process.communicate(timeout=chance.uniform(0, span))
                except subprocess.TimeoutExpired:
                    process.send_signal(signal.SIGKILL)
                    output, _ = process.communicate()
                    done += 1
            else:
                output, _ = process.communicate()
            lines = output.decode().splitlines(keepends=True)
            fresh = {line.strip() for line in lines if line.startswith("case") and line[-1] == "\n"}
            told |= fresh
            between += bool(fresh) and "finished\n" not in lines
            found += damages(root, told)
            if "finished\n" in lines:
                if (root / "configs/twice/nvidia_h200.json").read_bytes() != wanted:
                    found.append("the final config file differs from that of an undisturbed run")
                if done == kills:
                    return Lost(kills=done, between=between, damages=tuple(found))
                shutil.rmtree(root)
                make_pack(root)
                told = set()
            elif process.returncode != -signal.SIGKILL:
                found.append(f"a run ended with {process.returncode}: {output!r}")
                return Lost(kills=done, between=between, damages=tuple(found))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument(
        "--sleep", type=float, default=0.01, help="seconds that a stub search takes"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--portfolio", type=int)
    parser.add_argument("--run", type=Path, help="be the run that is killed")
    options = parser.parse_args()
    if options.run is not None:
        tune(options.run, options.sleep, options.portfolio)
        return
    found = kill_often(options.kills, options.sleep, options.seed, options.portfolio)
    print(f"{found.kills} kills, {found.between} of them after a case was saved")
    print("\n".join(found.damages) or "nothing damaged, nothing lost, the same bytes in the end")
    sys.exit(bool(found.damages))


if __name__ == "__main__":
    main()
