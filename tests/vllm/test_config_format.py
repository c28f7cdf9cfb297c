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

TEXT = json.dumps(
    [
        {"key": {"size": 4096, "numtokens": 1}, "config": NARROW},
        {"key": {}, "config": WIDE},
        {"key": {"size": 4096, "numtokens": 16}, "config": NARROW},
    ],
    indent=2,
)
TEXT += "\n"

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


KNOWN = "known axes are batchsize, dtype, has_bias, num_tokens, numtokens, size"
WRONG = {
    "empty-file": (
        "",
        ":1: KP820 the file ends in the middle of its JSON (Expecting value); restore it",
    ),
    "truncated": (
        TEXT[:200],
        ":15: KP820 the file ends in the middle of its JSON (Expecting value); restore it",
    ),
    "not-json": (
        "[\n{'key': {}}]",
        (
            ":2: KP820 the file is not JSON at column 2 (Expecting property name enclosed in "
            "double quotes); restore it"
        ),
    ),
    "nan": (
        array(entry(config='{"num_warps": NaN}')),
        ": KP820 the file cannot be read (NaN is not a finite number); restore it",
    ),
    "byte-order-mark": (
        "\ufeff" + TEXT,
        (
            ":1: KP820 the file is not JSON at column 1 (Unexpected UTF-8 BOM (decode using "
            "utf-8-sig)); restore it"
        ),
    ),
    "half-of-a-surrogate-pair": (
        array(entry(config='{"advanced_controls_file": "\\ud800"}')),
        ": KP820 the file has half of a surrogate pair, which is not text; restore it",
    ),
    "file-of-ours": (
        '{"edition": 1, "kernel": "x", "platform": "p", "tuned_with": {}, "cases": []}',
        ": KP820 the file is kernelpkg's own; vLLM's are arrays of entries",
    ),
    "number": ("5", ": KP821 an array of entries is expected, not 5"),
    "no-entries": ("[]", ": KP821 there are no entries; remove what is empty"),
    "no-keys": ("{}", ": KP821 there are no entries; remove what is empty"),
    "entry-of-another-type": (
        array("5"),
        ":2: KP821 entry 0: an object with 'key' and 'config' is expected, not 5",
    ),
    "no-key": (
        array('{"config": {}}'),
        ":2: KP821 entry 0: field 'key' is missing; it must be an object",
    ),
    "no-config": (
        array(entry(), '{"key": {"size": 2, "numtokens": 1}}'),
        ":3: KP821 entry 1: field 'config' is missing; it must be an object",
    ),
    "key-of-another-type": (
        array(entry('"size_1"')),
        """:2: KP821 entry 0: field 'key' must be an object, not "size_1\"""",
    ),
    "unknown-field": (
        array('{"key": {}, "config": {}, "configs": 1, "ms": 2}'),
        ":2: KP821 entry 0: field 'configs' is not known; did you mean 'config'?",
        ":2: KP821 entry 0: field 'ms' is not known; entries have 'key' and 'config'",
    ),
    "name-given-twice": (
        array(entry('{"size": 1, "size": 2, "numtokens": 1}')),
        ":2: KP821 'size' is given twice; keep one of them",
    ),
    "older-layout": (
        '{"default": {},\n"size_4096_numtokens_1": {"num_warps": 3}}',
        (
            ": KP822 the layout, an object from keys that are texts, is of a vLLM before 0.33; "
            "import the configs of vLLM 0.33 instead"
        ),
    ),
    "axis-by-two-names": (
        array(entry('{"size": 1, "numtokens": 1, "batchsize": 2}')),
        (":2: KP825 entry 0, key: axis 'num_tokens' is given twice; keep one of its names"),
    ),
    "axis-without-a-rule": (
        array(entry('{"siz": 1, "numtokens": 1}'), entry('{"siz": 2, "zzz": 1, "numtokens": 1}')),
        ":2: KP823 entry 0, key: axis 'siz' has no rule; did you mean 'size'?",
        f":3: KP823 entry 1, key: axis 'zzz' has no rule; {KNOWN}",
    ),
    "axis-without-a-default": (
        array(entry('{"numtokens": 1}'), entry('{"numtokens": 2}')),
        (
            ":2: KP823 entry 0, key: axis 'size' is missing and has no default; give it one in "
            "[inputs] default"
        ),
    ),
    "keys-of-other-axes": (
        array(
            entry(),
            entry("{}"),
            entry('{"size": 1, "numtokens": 2, "has_bias": true}'),
            entry('{"size": 1, "numtokens": 3, "has_bias": true}'),
        ),
        (
            ":4: KP823 entry 2, key: names has_bias, num_tokens, size, and entry 0 num_tokens, "
            "size; keys of one file name the same axes"
        ),
    ),
    "values-of-other-types": (
        array(entry('{"size": 1.5, "numtokens": "1"}'), entry('{"size": [1], "numtokens": null}')),
        (
            ":2: KP824 entry 0, key: axis 'numtokens' has value '1', which is a text, and must "
            "be a whole number"
        ),
        (
            ":2: KP824 entry 0, key: axis 'size' has value 1.5, which is a number, and must be "
            "a whole number"
        ),
        (
            ":3: KP824 entry 1, key: axis 'numtokens' cannot be null, for it has a value in "
            "every call"
        ),
        (
            ":3: KP824 entry 1, key: axis 'size' must be a number, text, true, false or null, "
            "not [1]"
        ),
    ),
    "key-twice": (
        array(entry(), entry("{}"), entry(), entry("{}")),
        (
            ":4: KP825 entry 2: has the key of entry 0 too, and vLLM takes the later one; keep "
            "one of them"
        ),
        (
            ":5: KP825 entry 3: has the key of entry 1 too, and vLLM takes the later one; keep "
            "one of them"
        ),
    ),
    "config-of-another-type": (
        array(entry(config="[4]")),
        ":2: KP502 entry 0: an object is expected, not [4]",
    ),
    "config-with-unknown-field": (
        array(entry(config='{\n"num_warp": 4}')),
        ":3: KP502 entry 0: field 'num_warp' is not known; did you mean 'num_warps'?",
    ),
    "config-with-a-value-that-no-gpu-takes": (
        array(entry("{}", '{"num_warps": 3, "num_stages": 0}')),
        ":2: KP508 entry 0: num_stages is 0; it must be a whole number, 1 or more",
        ":2: KP508 entry 0: num_warps is 3; it must be a power of two from 1 to 32",
    ),
}


@pytest.mark.parametrize("case", WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_said_with_its_line(case):
    text, *lines = case
    assert problems_of(text) == lines


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
