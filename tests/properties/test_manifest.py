"""Whatever is done to a manifest, reading it gives a spec or problems, never a traceback."""

from __future__ import annotations

import copy
import datetime
import shutil
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from hypothesis import given, settings
from hypothesis import strategies as st

from kernelpkg.errors import PackError
from kernelpkg.packs.read import read_kernel, read_pack

GOOD = Path(__file__).parents[1] / "golden" / "good"
KERNEL = (GOOD / "kernels/x/kernel.toml").read_bytes()
PACK = (GOOD / "manifests/good.toml").read_bytes()
PIECES = (
    '"', "'''", "[[", "]]", "{", "}", "=", "#", ",", ".", "\n", "\r", "\0", "é", "\\U0001F600", "(",
    ")", "*", "//0", "1e999", "0x2", "None", " is None", " in [1]", "lambda:0", "..", "/", ":", "-",
)  # fmt: skip
VALUES: list[Any] = [
    0, 1, -1, True, False, 0.5, float("inf"), float("nan"), 10**30, 10**400, "", "*", "x", "none",
    "input", "input.shape[0]", "a" * 2000, "1+" * 900 + "1", "\n", "\0", "é", "host.py:x",
    "host.py:pick", "../host.py:pick", "kernel.py:x", "-num_tokens", "1//0",
    "num_tokens % num_tokens", "dtype", "residual is None", "not dtype", "dtype*9999999999",
    "int8", "() -> ()", "exact", "(Tensor x) -> Tensor", "ranges", "ignore", "randint", [],
    [[]], [1], ["x"], {}, {"a": 1}, [{}],
    [{"when": "x"}], {"shape": []}, {"shape": [], "dtype": "float32"}, {"value": 1},
    datetime.date(2000, 1, 1), datetime.datetime(2000, 1, 1, tzinfo=datetime.UTC),
]  # fmt: skip
KEYS = (
    *("x", "é", "a b", "when", "init", "value", "high", "strides", "use", "int8"),
    *("source", "picker"),
)


@pytest.fixture(scope="module")
def reads_or_reports(tmp_path_factory):
    """Read a manifest of the given bytes; every problem must be one line."""
    root = tmp_path_factory.mktemp("random") / "good"
    shutil.copytree(GOOD, root)

    def read(data: bytes, *, pack: bool) -> None:
        (root / "manifests/good.toml").write_bytes(data if pack else PACK)
        (root / "kernels/x/kernel.toml").write_bytes(KERNEL if pack else data)
        try:
            read_pack(root, "good") if pack else read_kernel(root, "x")
        except PackError as error:
            assert error.problems
            assert str(error).isprintable() or len(error.problems) > 1
            assert all(str(problem).isprintable() for problem in error.problems)

    return read


@settings(max_examples=150)
@given(st.data(), st.booleans())
def test_random_edits_of_bytes(reads_or_reports, data, pack):
    """Bytes are put in, taken out and moved about."""
    text = bytearray(PACK if pack else KERNEL)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(text)))
        kind = data.draw(st.sampled_from(["insert", "remove", "copy", "byte"]))
        if kind == "insert":
            text[at:at] = data.draw(st.sampled_from(PIECES)).encode()
        elif kind == "remove":
            del text[at : at + data.draw(st.integers(1, 20))]
        elif kind == "copy":
            start = data.draw(st.integers(0, len(text)))
            text[at:at] = text[start : start + data.draw(st.integers(1, 60))]
        else:
            text[at:at] = bytes([data.draw(st.integers(0, 255))])
    reads_or_reports(bytes(text), pack=pack)


def paths(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if at:
        yield at
    if isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from paths(item, (*at, key))


@settings(max_examples=250)
@given(st.data(), st.booleans())
def test_random_values_at_any_place(reads_or_reports, data, pack):
    """Values of all types stand where others are wanted, and keys come and go."""
    document = copy.deepcopy(tomllib.loads((PACK if pack else KERNEL).decode()))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.sampled_from(list(paths(document)) or [("edition",)]))
        around = document
        for key in at[:-1]:
            around = around[key]
        kind = data.draw(st.sampled_from(["set", "set", "remove", "add"]))
        value = copy.deepcopy(data.draw(st.sampled_from(VALUES)))
        if kind == "set":
            around[at[-1]] = value
        elif kind == "add" and isinstance(around, dict):
            around[data.draw(st.sampled_from(KEYS))] = value
        elif at[-1] in around if isinstance(around, dict) else True:
            del around[at[-1]]
    reads_or_reports(tomli_w.dumps(document).encode(), pack=pack)
