"""The config store: what it writes it reads, and what is wrong in a file is said in full."""

# ruff: noqa: E501  # tables of cases and messages have whole lines

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from kernelpkg.configs.store import ConfigFile, TunedCase, dumps, read, store, write
from kernelpkg.errors import PackError
from kernelpkg.manifest.helion_config import FIELDS, POSITIONAL, without_positional

SHOWN = "configs/x/nvidia_h200.json"
AXES = ("hidden_size", "num_tokens", "dtype")
DEFAULTS = {"dtype": "fp8"}

FILE = ConfigFile(
    kernel="x",
    platform="nvidia_h200",
    tuned_with={"helion": "1.5.1", "gpu": "NVIDIA H200"},
    configs=({"num_warps": 4, "block_sizes": [8, 64]}, {"indexing": ["pointer", "block_ptr"]}),
    cases=(
        TunedCase(key={}, config=0),
        TunedCase(key={"hidden_size": 4096, "num_tokens": 1, "dtype": "int8"}, config=1, ms=0.25),
        TunedCase(key={"num_tokens": 16, "hidden_size": 4096}, config=0),
    ),
)

TEXT = (Path(__file__).parents[1] / "golden" / "config_file.json").read_text()


def read_at(path):
    return read(path, SHOWN, "x", "nvidia_h200", AXES, DEFAULTS)


def problems_of(path, content):
    """Return the lines that reading a file with this content raises."""
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(PackError) as caught:
        read_at(path)
    return str(caught.value).splitlines()


def test_the_file_is_readable_by_people(tmp_path):
    """A file has a line per config and per case, and no more brackets than it needs."""
    path = tmp_path / "configs" / "x" / "nvidia_h200.json"
    write(path, FILE)
    assert path.read_text() == TEXT
    assert read_at(path) == FILE


def test_a_file_without_cases(tmp_path):
    """A file may hold nothing but its head."""
    path = tmp_path / "nvidia_h200.json"
    write(path, ConfigFile(kernel="x", platform="nvidia_h200"))
    assert path.read_text().splitlines()[4:] == [
        '  "tuned_with": {},',
        '  "configs": [],',
        '  "cases": []',
        "}",
    ]
    assert read_at(path) == ConfigFile(kernel="x", platform="nvidia_h200")


def test_equal_configs_become_one(tmp_path):
    """Configs that are equal but for the order of their fields are written once."""
    configs = (
        {"num_warps": 4, "num_stages": 2},
        {"num_warps": 8},
        {"num_stages": 2, "num_warps": 4},
    )
    cases = tuple(TunedCase(key={"num_tokens": place}, config=place) for place in range(3))
    path = tmp_path / "nvidia_h200.json"
    write(path, evolve(FILE, configs=configs, cases=cases))
    found = read(path, SHOWN, "x", "nvidia_h200", ("num_tokens",), {})
    assert found.configs == configs[:2]
    assert [case.config for case in found.cases] == [0, 1, 0]


def test_flags_and_numbers_are_different_configs(tmp_path):
    """A config with true is not merged with one that has 1 there."""
    configs = ({"static_ranges": [True]}, {"static_ranges": [1]})
    path = tmp_path / "nvidia_h200.json"
    write(path, evolve(FILE, configs=configs))
    assert json.loads(path.read_text())["configs"] == list(configs)
    assert "true" in path.read_text()


VALUES = st.one_of(
    st.booleans(),
    st.none(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(),
)


@st.composite
def files(draw):
    """Draw files whose configs and keys are distinct, with any text in them."""
    count = draw(st.integers(1, 3))
    axes = draw(st.lists(st.text(), min_size=1, max_size=3, unique=True))
    configs = [{"num_stages": 1 + place, "num_warps": 2**place} for place in range(count)]
    rows = draw(
        st.lists(
            st.tuples(*(VALUES for _ in axes)),
            max_size=4,
            unique_by=lambda row: tuple((isinstance(value, bool), value) for value in row),
        )
    )
    cases = [
        TunedCase(
            key=dict(zip(axes, row, strict=True)),
            config=draw(st.integers(0, count - 1)),
            ms=draw(st.none() | st.floats(0, 1e9)),
        )
        for row in rows
    ]
    tuned_with = draw(st.dictionaries(st.sampled_from(["helion", "gpu", "date"]), st.text()))
    file = ConfigFile(
        kernel=draw(st.text()),
        platform=draw(st.text()),
        tuned_with=tuned_with,
        configs=tuple(configs),
        cases=tuple(cases),
    )
    return file, axes


@given(files())
def test_what_is_written_is_read(drawn):
    """Reading gives back the value that was written, and writing it again the same bytes."""
    file, axes = drawn
    with tempfile.TemporaryDirectory() as folder:
        path, again = Path(folder, "one.json"), Path(folder, "two.json")
        write(path, file)
        found = read(path, SHOWN, file.kernel, file.platform, axes, {})
        write(again, found)
        assert found == file
        assert again.read_bytes() == path.read_bytes()


@pytest.mark.parametrize("name", ["replace", "fsync"])
def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch, name):
    """A write that fails at its last step changes nothing and leaves nothing beside the file."""
    path = tmp_path / "nvidia_h200.json"
    write(path, FILE)

    def fail(*_):
        message = "no space left"
        raise OSError(message)

    monkeypatch.setattr(os, name, fail)
    with pytest.raises(OSError, match="no space left"):
        write(path, evolve(FILE, cases=()))
    assert path.read_text() == TEXT
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("change", "error"),
    [
        pytest.param({"configs": ({"num_warps": float("nan")},)}, ValueError, id="nan"),
        pytest.param({"cases": (TunedCase(key={}, config=7),)}, IndexError, id="no-such-config"),
    ],
)
def test_a_value_that_is_no_file_is_not_written(tmp_path, change, error):
    """What could not be read again is refused before the old file is touched."""
    path = tmp_path / "nvidia_h200.json"
    write(path, FILE)
    with pytest.raises(error):
        write(path, evolve(FILE, **change))
    assert path.read_text() == TEXT
    assert list(tmp_path.iterdir()) == [path]


def test_without_positional():
    """What is counted by loads and stores is dropped, all else is kept."""
    config = {name: ["pointer"] for name in POSITIONAL} | {"num_warps": 4, "block_sizes": [8]}
    assert without_positional(config) == {"num_warps": 4, "block_sizes": [8]}
    assert POSITIONAL < FIELDS


def test_a_file_that_is_not_there(tmp_path):
    """A missing file is a problem like any other, not an exception of the system."""
    with pytest.raises(PackError) as caught:
        read_at(tmp_path / "gone.json")
    assert str(caught.value) == (
        f"{SHOWN}: KP501 the file cannot be read (No such file or directory); "
        "restore it or tune again"
    )


def test_nesting_without_end(tmp_path):
    """A file that would exhaust the parser is a problem like any other."""
    (found,) = problems_of(tmp_path / "nvidia_h200.json", "[" * 100_000)
    assert found.startswith(f"{SHOWN}: KP501 the file cannot be read (maximum recursion depth")


TOO_LARGE = ":12: KP503 case 1: config index 2 is out of range; the file has 2 configs (0 to 1)"


def test_all_problems_in_one_run(tmp_path):
    """One wrong case hides no other, and the lines come in the order of the file."""
    content = (
        TEXT.replace('"kernel": "x"', '"kernel": "y"')
        .replace('"num_warps": 4', '"num_warps": 5')
        .replace('"config": 1', '"config": 2')
        .replace('"num_tokens": 16', '"tokens": 16')
    )
    assert problems_of(tmp_path / "nvidia_h200.json", content) == [
        f"{SHOWN}:3: KP505 the file is of kernel 'y', but stands in the place of 'x'",
        f"{SHOWN}:7: KP508 config 0: num_warps is 5; it must be a power of two from 1 to 32",
        SHOWN + TOO_LARGE,
        f"{SHOWN}:13: KP506 case 2, key: axis 'num_tokens' is missing and has no default",
        f"{SHOWN}:13: KP506 case 2, key: axis 'tokens' has no rule; did you mean 'num_tokens'?",
    ]


def test_lines_do_not_depend_on_the_layout(tmp_path):
    """Lines are right too where a tool has written a value over many lines."""
    content = json.dumps(json.loads(TEXT.replace("[8, 64]", '[8, "]", 64]')), indent=2)
    line = 1 + [row.strip() for row in content.splitlines()].index('"block_sizes": [')
    expected = 'KP508 config 0: block_sizes is [8, "]", 64]; it must be a list of powers of two'
    assert problems_of(tmp_path / "nvidia_h200.json", content) == [f"{SHOWN}:{line}: {expected}"]


def test_a_stored_file_needs_no_disk(tmp_path):
    """What was checked is decoded from memory, for calls may come after the file is gone."""
    path = tmp_path / "it.json"
    path.write_text(TEXT)
    found = store(path, SHOWN, "x", "nvidia_h200", AXES, DEFAULTS)
    path.unlink()
    assert found.counts() == FILE.counts() == (3, 2)
    assert found.content() == FILE


def test_equal_configs_count_once():
    """Neither the order of fields nor a config that no case has makes one more."""
    file = ConfigFile(
        kernel="x",
        platform="nvidia_h200",
        configs=({"num_warps": 4, "num_stages": 1}, {"num_stages": 1, "num_warps": 4}, {}),
        cases=(TunedCase(key={}, config=0), TunedCase(key={"num_tokens": 1}, config=1)),
    )
    assert file.counts() == (2, 1)


RUNS = ConfigFile(
    kernel="x",
    platform="cpu",
    tuned_with={"helion": "1.4.0"},
    runs=({"helion": "1.5.1", "gpu": "NVIDIA H200"},),
    configs=({"num_warps": 4},),
    cases=(
        TunedCase(key={"num_tokens": 1}, config=0, ms=0.5, old_ms=0.7, default_ms=0.9, run=0),
        TunedCase(key={"num_tokens": 2}, config=0, ms=0.5),
    ),
)


def test_a_case_may_say_which_run_made_it_and_what_it_replaced(tmp_path):
    path = tmp_path / "cpu.json"
    write(path, RUNS)
    assert read(path, "cpu.json", "x", "cpu", ("num_tokens",), {}) == RUNS
    assert path.read_text().splitlines()[5:8] == [
        '  "runs": [',
        '    {"gpu": "NVIDIA H200", "helion": "1.5.1"}',
        "  ],",
    ]
    assert [RUNS.made_with(case).get("helion") for case in RUNS.cases] == ["1.5.1", "1.4.0"]


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        pytest.param('"run": 0', '"run": 1',
            "cpu.json:13: KP503 case 0: run index 1 is out of range; the file has 1 run (0)", id="index"),
        pytest.param('{"gpu"', '{"gpus"',
            "cpu.json:7: KP502 run 0: field 'gpus' is not known; did you mean 'gpu'?", id="field"),
        pytest.param('"old_ms": 0.7', '"old_ms": "0.7"',
            "cpu.json:13: KP502 case 0: field 'old_ms' must be a number, not \"0.7\"", id="time"),
    ],
)  # fmt: skip
def test_runs_are_read_strictly(tmp_path, old, new, line):
    path = tmp_path / "cpu.json"
    text = dumps(RUNS)
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(PackError) as caught:
        read(path, "cpu.json", "x", "cpu", ("num_tokens",), {})
    assert str(caught.value) == line
