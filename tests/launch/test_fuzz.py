"""The launcher in C under AddressSanitizer and UBSan, with random calls from a fixed seed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
CASES = 40_000
SANITIZERS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-g", "-O1")


@pytest.fixture
def gcc(monkeypatch):
    """The compiler whose sanitizers are found beside it."""
    found = shutil.which("gcc")
    if found is None:
        pytest.skip("no gcc")
    monkeypatch.setenv("CC", found)
    return found


def runtime(gcc, name):
    """Return a library of the compiler, for the interpreter has to load it first."""
    done = subprocess.run(
        [gcc, f"-print-file-name={name}"], capture_output=True, text=True, check=True
    )
    path = done.stdout.strip()
    if not Path(path).is_absolute():
        pytest.skip(f"gcc has no {name}")
    return path


def fuzz(folder, gcc, hook, compile_c, *flags, source=None):
    """Compile both sides with the sanitizers, and run the cases."""
    libraries = [runtime(gcc, "libasan.so"), runtime(gcc, "libstdc++.so.6")]
    extension, driver = folder / "_native.abi3.so", folder / "libstub.so"
    source = source or ROOT / hook["SOURCE"]
    assert hook["compile_extension"](source, extension, *SANITIZERS, *flags) == ""
    compile_c(HERE / "stub_driver.c", driver, *SANITIZERS)
    environment = {
        **os.environ,
        "LD_PRELOAD": " ".join(libraries),
        "ASAN_OPTIONS": "detect_leaks=0",  # the interpreter and PyTorch keep what they have
        "PYTHONMALLOC": "malloc",  # so that what Python gives out has bounds that are watched
        "PYTHONPATH": str(ROOT),
    }
    command = [sys.executable, HERE / "fuzz.py", extension, driver, "20261129", str(CASES)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_random_calls_touch_no_memory_but_their_own(tmp_path, gcc, hook, compile_c):
    done = fuzz(tmp_path, gcc, hook, compile_c, "-Wpedantic", "-Werror")
    assert done.returncode == 0, done.stderr[-4000:]
    answered = int(done.stdout.split()[1])
    assert answered > CASES // 4


def test_a_write_behind_a_buffer_would_be_found(tmp_path, gcc, hook, compile_c):
    """A signature that is longer than the room for it, with the check of that taken out."""
    text = (ROOT / hook["SOURCE"]).read_text(encoding="utf-8")
    check = "if (count > key->capacity - key->used) {"
    assert check in text
    planted = tmp_path / "planted.c"
    planted.write_text(text.replace(check, "if (count > 1000000) {"), encoding="utf-8")
    done = fuzz(tmp_path, gcc, hook, compile_c, source=planted)
    assert done.returncode != 0
    assert "stack-buffer-overflow" in done.stderr
