"""vLLM's config files: what is read is written back, and what is wrong is said in full."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from attrs import evolve

from kernelpkg.configs.store import ConfigFile, TunedCase
from kernelpkg.errors import PackError
from kernelpkg.manifest.spec import AxisType
from kernelpkg.packs.read import read_kernel, read_pack
from kernelpkg.vllm.config_format import KeyAxes, dumps, key_axes, loads, with_vllm_keys

ROOT = Path(__file__).parents[2]
SHOWN = "vllm/x/nvidia_h200.json"
KINDS = {"dtype": "dtype", "has_bias": "flag", "size": "whole", "num_tokens": "whole"}
AXES = KeyAxes(
    kernel="x",
    types={axis: AxisType(kind=kind, low=None, absent=False) for axis, kind in KINDS.items()},
    defaults={"dtype": "bfloat16", "has_bias": True},
    names={"batchsize": "num_tokens", "numtokens": "num_tokens"},
)
ORDER = tuple(AXES.types)
NARROW = {"block_sizes": [1, 64], "num_warps": 4, "indexing": ["pointer", "tensor_descriptor"]}
WIDE = {"block_sizes": [8, 64], "range_flattens": [None, True], "num_warps": 8, "maxnreg": None}

TEXT = (ROOT / "tests/golden/vllm_config_file.json").read_text()

FULL = {"dtype": "bfloat16", "has_bias": True, "size": 4096}
FILE = ConfigFile(
    kernel="x",
    platform="nvidia_h200",
    tuned_with={"origin": "vLLM 0.33.0", "filled": "dtype=bfloat16, has_bias=true"},
    configs=(NARROW, WIDE),
    cases=(
        TunedCase(key={**FULL, "num_tokens": 1}, config=0),
        TunedCase(key={}, config=1),
        TunedCase(key={**FULL, "num_tokens": 16}, config=0),
    ),
)


def read(text, axes=AXES):
    return loads(text, SHOWN, axes, origin="vLLM 0.33.0", platform="nvidia_h200")


def back(file, axes=AXES):
    return dumps(with_vllm_keys(file, axes.defaults), ORDER, axes.theirs)


def problems_of(text):
    with pytest.raises(PackError) as caught:
        read(text)
    lines = str(caught.value).splitlines()
    assert all(line.startswith(SHOWN) for line in lines)
    return [line.removeprefix(SHOWN) for line in lines]


# --- there and back


def test_a_file_is_read_with_our_names_and_all_axes():
    """Equal configs become one, and axes that the keys lack are filled in, which is recorded."""
    assert read(TEXT) == FILE


def test_a_file_that_was_read_is_written_as_it_was():
    assert back(FILE) == TEXT


def test_fields_are_written_in_the_order_of_helion():
    """The store sorts fields by name; vLLM's own files have Helion's order, AMD's fields last."""
    config = {"waves_per_eu": 1, "num_warps": 4, "block_sizes": [1], "matrix_instr_nonkdim": 16}
    file = evolve(FILE, configs=(config, {}), cases=FILE.cases[:1])
    assert list(json.loads(dumps(file, ORDER))[0]["config"]) == [
        "block_sizes",
        "num_warps",
        "matrix_instr_nonkdim",
        "waves_per_eu",
    ]


def test_keys_are_written_as_they_are_without_names():
    """`dumps` drops nothing, and axes come in the order that is given."""
    (entry, *_) = json.loads(dumps(FILE, ("num_tokens", "size", "has_bias", "dtype")))
    assert list(entry["key"].items()) == [
        ("num_tokens", 1),
        ("size", 4096),
        ("has_bias", True),
        ("dtype", "bfloat16"),
    ]


def test_what_was_filled_in_is_dropped_whatever_the_default_is_today():
    """The file says what was filled in; a default that has changed since changes no key."""
    changed = evolve(AXES, defaults={"dtype": "float16", "has_bias": False})
    assert back(FILE, changed) == TEXT


def test_an_axis_that_tells_cases_apart_is_kept():
    """A case that was tuned since with another value of a filled axis is not mixed with others."""
    other = TunedCase(key={**FULL, "has_bias": False, "num_tokens": 1}, config=1)
    entries = json.loads(back(evolve(FILE, cases=(*FILE.cases, other))))
    assert [entry["key"] for entry in entries] == [
        {"has_bias": True, "size": 4096, "numtokens": 1},
        {},
        {"has_bias": True, "size": 4096, "numtokens": 16},
        {"has_bias": False, "size": 4096, "numtokens": 1},
    ]


def test_keys_of_one_file_name_the_same_axes():
    """Axes that only some keys of a tuned file name are written in all of them."""
    cases = (
        TunedCase(key={"size": 8, "num_tokens": 1}, config=0),
        TunedCase(key={"size": 8, "num_tokens": 1, "dtype": "int8"}, config=1),
        TunedCase(key={}, config=1),
    )
    file = evolve(FILE, tuned_with={}, cases=cases)
    assert [entry["key"] for entry in json.loads(back(file))] == [
        {"dtype": "bfloat16", "size": 8, "numtokens": 1},
        {"dtype": "int8", "size": 8, "numtokens": 1},
        {},
    ]


def test_axes_that_no_key_of_a_tuned_file_names_stay_out():
    cases = (TunedCase(key={"size": 8, "num_tokens": 1}, config=0),)
    file = evolve(FILE, tuned_with={}, cases=cases)
    assert [entry["key"] for entry in json.loads(back(file))] == [{"size": 8, "numtokens": 1}]


def test_no_key_becomes_that_of_the_default_case():
    """A record that would drop all axes is not believed."""
    record = "dtype=bfloat16, has_bias=true, size=4096, num_tokens=1"
    file = evolve(FILE, tuned_with={"filled": record}, cases=FILE.cases[:2])
    keys = [entry["key"] for entry in json.loads(back(file))]
    assert keys == [{**FULL, "numtokens": 1}, {}]


@pytest.mark.parametrize("record", ["", "dtype", "=", "size=x", "nonsense, =, a=b"])
def test_a_record_that_says_nothing_drops_nothing(record):
    file = evolve(FILE, tuned_with={"filled": record})
    assert json.loads(back(file))[0]["key"] == {**FULL, "numtokens": 1}


def test_keys_that_lack_nothing_have_no_record():
    """Where vLLM's keys name all axes, nothing is filled in."""
    text = json.dumps([{"key": {**FULL, "numtokens": 1}, "config": NARROW}])
    file = read(text)
    assert file.tuned_with == {"origin": "vLLM 0.33.0"}
    assert json.loads(back(file)) == json.loads(text)


def test_a_file_may_hold_nothing_but_the_default_case():
    file = read('[{"key": {}, "config": {}}]')
    assert file == evolve(
        FILE,
        tuned_with={"origin": "vLLM 0.33.0"},
        configs=({},),
        cases=(TunedCase(key={}, config=0),),
    )
    assert json.loads(back(file)) == [{"key": {}, "config": {}}]


def test_swapped_names_come_back():
    """Two axes may have each other's names."""
    axes = evolve(AXES, names={"size": "num_tokens", "num_tokens": "size"})
    text = '[{"key": {"size": 1, "num_tokens": 4096}, "config": {}}]'
    file = read(text, axes)
    assert file.cases[0].key == {**FULL, "num_tokens": 1}
    assert json.loads(back(file, axes)) == json.loads(text)


def test_equal_numbers_of_other_types_are_other_configs():
    """1, 1.0 and true are three values of a field; all come back as they were."""
    text = json.dumps(
        [{"key": {"size": n, "numtokens": 1}, "config": {"xcd_remap": v}} for n, v in
         enumerate((1, 1.0, True, 1))]
    )  # fmt: skip
    file = read(text)
    assert len(file.configs) == 3
    assert back(file) == json.dumps(json.loads(text), indent=2) + "\n"


def test_axes_of_a_kernel_have_its_types_and_the_names_of_its_pack():
    """The order is that of the rules; of several names of vLLM's, the last is written."""
    pack = read_pack(ROOT, "kernelpkg")
    axes = key_axes(read_kernel(ROOT, "silu_mul_fp8"), pack)
    assert [(axis, found.kind) for axis, found in axes.types.items()] == [
        ("in_dtype", "dtype"),
        ("intermediate_size", "whole"),
        ("num_tokens", "whole"),
    ]
    assert axes.theirs == {"intermediate_size": "intermediate", "num_tokens": "numtokens"}
    assert axes.names["batchsize"] == "num_tokens"


def test_copies_of_the_default_case_are_marked_unless_an_axis_has_that_name():
    assert AXES.is_marked({"default": True, "num_tokens": 1})
    assert not AXES.is_marked({"default": 1})
    assert not AXES.is_marked({"num_tokens": 1})
    assert not evolve(AXES, names={"default": "has_bias"}).is_marked({"default": True})


# --- what is wrong


def entry(key='{"size": 1, "numtokens": 1}', config='{"num_warps": 4}'):
    return f'{{"key": {key}, "config": {config}}}'


def array(*entries):
    """Return an array with an entry per line, the first of them on line 2."""
    return "[\n" + ",\n".join(entries) + "\n]\n"


def test_a_document_that_is_nested_too_deeply_is_refused():
    deep = "[" * 5000 + "]" * 5000
    (line,) = problems_of(array(entry(config=f'{{"loop_orders": {deep}}}')))
    assert line.startswith(": KP820 the file cannot be read (maximum recursion depth exceeded")


def test_what_is_very_long_is_shortened():
    long = "n" * 100_000
    for text in (
        array(entry(f'{{"{long}": 1}}')),
        array(entry(f'{{"dtype": "{long}"}}')),
        array(f'{{"{long}": 1, "key": {{}}, "config": {{}}}}'),
    ):
        assert all(len(line) < 400 for line in problems_of(text))
