"""Every error that reading config files can report, word for word: ours, and vLLM's."""

from pathlib import Path

import pytest

from kernelpkg.configs import store
from kernelpkg.errors import PackError
from kernelpkg.manifest.spec import AxisType
from kernelpkg.vllm import config_format

SHOWN = "x/nvidia_h200.json"


def problems(read, content, tmp_path):
    """Return the lines that reading a file raises, each without the file's name."""
    path = tmp_path / "nvidia_h200.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(PackError) as caught:
        read(path)
    lines = str(caught.value).splitlines()
    assert all(line.startswith(SHOWN) for line in lines)
    return [line.removeprefix(SHOWN) for line in lines]


# --- files of the store

TEXT = Path(__file__).with_name("config_file.json").read_text()

# What the file holds, and all lines that are reported.
STORE = {
    "empty": ("",
        ":1: KP501 the file ends in the middle of its JSON (Expecting value); restore it or tune again"),
    "truncated": (TEXT[:-40],
        ":13: KP501 the file ends in the middle of its JSON (Expecting ',' delimiter); restore it or tune again"),
    "truncated-between-fields": (TEXT[: TEXT.index('"platform"')],
        ":4: KP501 the file ends in the middle of its JSON (Expecting property name enclosed in double quotes); restore it or tune again"),
    "not-json": (TEXT.replace('"edition": 1,', '"edition": 1;'),
        ":2: KP501 the file is not JSON at column 15 (Expecting ',' delimiter); restore it or tune again"),
    "more than 64 bits": (TEXT.replace("0.25", "1" * 5000),
        f": KP501 the file cannot be read ({'1' * 79}… is a whole number of more than 64 bits); restore it or tune again"),
    "64 bits and one": (TEXT.replace("0.25", "-9223372036854775809"),
        ": KP501 the file cannot be read (-9223372036854775809 is a whole number of more than 64 bits); restore it or tune again"),
    "nan": (TEXT.replace("0.25", "NaN"),
        ": KP501 the file cannot be read (NaN is not a finite number); restore it or tune again"),
    "beyond-floats": (TEXT.replace("0.25", "1e999"),
        ": KP501 the file cannot be read (1e999 is not a finite number); restore it or tune again"),
    "not-utf-8": (b"\xff",
        ": KP501 the file cannot be read ('utf-8' codec can't decode byte 0xff in position 0: invalid start byte); restore it or tune again"),
    "no-object": ("[]",
        ": KP502 an object is expected, not []"),
    "missing-field": (TEXT.replace('  "kernel": "x",\n', ""),
        ": KP502 field 'kernel' is missing; it must be a text"),
    "mistyped-field": (TEXT.replace('"platform": "nvidia_h200"', '"platform": 4'),
        ":4: KP502 field 'platform' must be a text, not 4"),
    "edition-true": (TEXT.replace('"edition": 1', '"edition": true'),
        ":2: KP502 field 'edition' must be a whole number, not true"),
    "unknown-field": (TEXT.replace('  "cases": [', '  "case": [],\n  "cases": ['),
        ":10: KP502 field 'case' is not known; did you mean 'cases'?"),
    "unknown-provenance": (TEXT.replace('"gpu"', '"gpus"'),
        ":5: KP502 tuned_with: field 'gpus' is not known; did you mean 'gpu'?"),
    "mistyped-provenance": (TEXT.replace('"1.5.1"', "1.5"),
        ":5: KP502 tuned_with: field 'helion' must be a text, not 1.5"),
    "unknown-config-field": (TEXT.replace('"num_warps"', '"num_warp"'),
        ":7: KP502 config 0: field 'num_warp' is not known; did you mean 'num_warps'?"),
    "mistyped-config": (TEXT.replace('    {"indexing": ["pointer", "block_ptr"]}', "    null"),
        ":8: KP502 config 1: an object is expected, not null"),
    "mistyped-case": (TEXT.replace('{"key": {}, "config": 0}', "7"),
        ":11: KP502 case 0: an object is expected, not 7"),
    "mistyped-index": (TEXT.replace('"config": 1', '"config": "1"'),
        ":12: KP502 case 1: field 'config' must be a whole number, not \"1\""),
    "mistyped-time": (TEXT.replace('"ms": 0.25', '"ms": "0.25"'),
        ":12: KP502 case 1: field 'ms' must be a number, not \"0.25\""),
    "unknown-case-field": (TEXT.replace('"ms": 0.25', '"configs": 1'),
        ":12: KP502 case 1: field 'configs' is not known; did you mean 'config'?"),
    "missing-index": (TEXT.replace('{"key": {}, "config": 0}', '{"key": {}}'),
        ":11: KP502 case 0: field 'config' is missing; it must be a whole number"),
    "mistyped-axis": (TEXT.replace('"num_tokens": 16', '"num_tokens": [16]'),
        ":13: KP502 case 2, key: axis 'num_tokens' must be a number, text, true, false or null, not [16]"),
    "axis-twice": (TEXT.replace('"num_tokens": 16', '"num_tokens": 16, "num_tokens": 8'),
        ":13: KP502 case 2, key: field 'num_tokens' is given twice; keep one of them"),
    "field-twice": (TEXT.replace('"kernel": "x"', '"kernel": "x", "kernel": "x"'),
        ":3: KP502 field 'kernel' is given twice; keep one of them"),
    "index-too-large": (TEXT.replace('"config": 1', '"config": 9'),
        ":12: KP503 case 1: config index 9 is out of range; the file has 2 configs (0 to 1)"),
    "index-negative": (TEXT.replace('"config": 1', '"config": -1'),
        ":12: KP503 case 1: config index -1 is out of range; the file has 2 configs (0 to 1)"),
    "index-of-one": (TEXT.replace(',\n    {"indexing": ["pointer", "block_ptr"]}', ""),
        ":11: KP503 case 1: config index 1 is out of range; the file has 1 config (0)"),
    "case-twice": (TEXT.replace('"dtype": "int8", ', "").replace('"num_tokens": 1}', '"num_tokens": 16}'),
        ":13: KP504 case 2, key: is the key of case 1 too; keep one of them"),
    "case-twice-through-a-default": (
        TEXT.replace('"int8"', '"fp8"').replace('"num_tokens": 1}', '"num_tokens": 16.0}'),
        ":13: KP504 case 2, key: is the key of case 1 too; keep one of them"),
    "other-kernel": (TEXT.replace('"kernel": "x"', '"kernel": "y"'),
        ":3: KP505 the file is of kernel 'y', but stands in the place of 'x'"),
    "other-platform": (TEXT.replace("nvidia_h200", "nvidia_h100"),
        ":4: KP505 the file is of platform 'nvidia_h100', but stands in the place of 'nvidia_h200'"),
    "axis-without-rule": (TEXT.replace('"dtype": "int8"', '"dtyp": "int8"'),
        ":12: KP506 case 1, key: axis 'dtyp' has no rule; did you mean 'dtype'?"),
    "axis-missing": (TEXT.replace('"hidden_size": 4096, "num_tokens": 16', '"num_tokens": 16'),
        ":13: KP506 case 2, key: axis 'hidden_size' is missing and has no default"),
    "future-edition": ('{"edition": 2, "files": []}',
        ":1: KP507 edition 2 cannot be read; this version of kernelpkg reads edition 1"),
    "num_warps-3": (TEXT.replace('"num_warps": 4', '"num_warps": 3'),
        ":7: KP508 config 0: num_warps is 3; it must be a power of two from 1 to 32"),
    "num_warps-64": (TEXT.replace('"num_warps": 4', '"num_warps": 64'),
        ":7: KP508 config 0: num_warps is 64; it must be a power of two from 1 to 32"),
    "num_warps-text": (TEXT.replace('"num_warps": 4', '"num_warps": "4"'),
        ':7: KP508 config 0: num_warps is "4"; it must be a power of two from 1 to 32'),
    "num_stages-0": (TEXT.replace('"num_warps": 4', '"num_stages": 0'),
        ":7: KP508 config 0: num_stages is 0; it must be a whole number, 1 or more"),
    "block-48": (TEXT.replace("[8, 64]", "[8, 48]"),
        ":7: KP508 config 0: block_sizes is [8, 48]; it must be a list of powers of two"),
    "block-0": (TEXT.replace("[8, 64]", "[0, true]"),
        ":7: KP508 config 0: block_sizes is [0, true]; it must be a list of powers of two"),
    "block-alone": (TEXT.replace("[8, 64]", "64"),
        ":7: KP508 config 0: block_sizes is 64; it must be a list of powers of two"),
    "eviction-misspelt": (TEXT.replace('"num_warps": 4', '"load_eviction_policies": ["", "frist", "last"]'),
        ':7: KP508 config 0: load_eviction_policies is ["", "frist", "last"]; it must be made of \'\', \'first\' and \'last\''),
}

@pytest.mark.parametrize("name", STORE)
def test_a_file_of_the_store(name, tmp_path):
    """Everything that is wrong has a line of its own, with its place, code and remedy."""
    content, *lines = STORE[name]

    def read(path):
        axes = ("hidden_size", "num_tokens", "dtype")
        return store.read(path, SHOWN, "x", "nvidia_h200", axes, {"dtype": "fp8"})

    assert problems(read, content, tmp_path) == lines


# --- files of vLLM's

THEIRS = Path(__file__).with_name("vllm_config_file.json").read_text()
KINDS = {"dtype": "dtype", "has_bias": "flag", "size": "whole", "num_tokens": "whole"}
AXES = config_format.KeyAxes(
    kernel="x",
    types={axis: AxisType(kind=kind, low=None, absent=False) for axis, kind in KINDS.items()},
    defaults={"dtype": "bfloat16", "has_bias": True},
    names={"batchsize": "num_tokens", "numtokens": "num_tokens"},
)


def entry(key='{"size": 1, "numtokens": 1}', config='{"num_warps": 4}'):
    return f'{{"key": {key}, "config": {config}}}'


def array(*entries):
    """Return an array with an entry per line, the first of them on line 2."""
    return "[\n" + ",\n".join(entries) + "\n]\n"


VLLM = {
    "empty-file": ("",
        ":1: KP820 the file ends in the middle of its JSON (Expecting value); restore it"),
    "truncated": (THEIRS[:200],
        ":15: KP820 the file ends in the middle of its JSON (Expecting value); restore it"),
    "not-json": ("[\n{'key': {}}]",
        ":2: KP820 the file is not JSON at column 2 (Expecting property name enclosed in double quotes); restore it"),
    "nan": (array(entry(config='{"num_warps": NaN}')),
        ": KP820 the file cannot be read (NaN is not a finite number); restore it"),
    "byte-order-mark": ("\ufeff" + THEIRS,
        ":1: KP820 the file is not JSON at column 1 (Unexpected UTF-8 BOM (decode using utf-8-sig)); restore it"),
    "half-of-a-surrogate-pair": (array(entry(config='{"advanced_controls_file": "\\ud800"}')),
        ": KP820 the file has half of a surrogate pair, which is not text; restore it"),
    "file-of-ours": ('{"edition": 1, "kernel": "x", "platform": "p", "tuned_with": {}, "cases": []}',
        ": KP820 the file is kernelpkg's own; vLLM's are arrays of entries"),
    "number": ("5",
        ": KP821 an array of entries is expected, not 5"),
    "no-entries": ("[]",
        ": KP821 there are no entries; remove what is empty"),
    "no-keys": ("{}",
        ": KP821 there are no entries; remove what is empty"),
    "entry-of-another-type": (array("5"),
        ":2: KP821 entry 0: an object with 'key' and 'config' is expected, not 5"),
    "no-key": (array('{"config": {}}'),
        ":2: KP821 entry 0: field 'key' is missing; it must be an object"),
    "no-config": (array(entry(), '{"key": {"size": 2, "numtokens": 1}}'),
        ":3: KP821 entry 1: field 'config' is missing; it must be an object"),
    "key-of-another-type": (array(entry('"size_1"')),
        """:2: KP821 entry 0: field 'key' must be an object, not "size_1\""""),
    "unknown-field": (array('{"key": {}, "config": {}, "configs": 1, "ms": 2}'),
        ":2: KP821 entry 0: field 'configs' is not known; did you mean 'config'?",
        ":2: KP821 entry 0: field 'ms' is not known; entries have 'key' and 'config'"),
    "name-given-twice": (array(entry('{"size": 1, "size": 2, "numtokens": 1}')),
        ":2: KP821 'size' is given twice; keep one of them"),
    "older-layout": ('{"default": {},\n"size_4096_numtokens_1": {"num_warps": 3}}',
        ": KP822 the layout, an object from keys that are texts, is of a vLLM before 0.33; import the configs of vLLM 0.33 instead"),
    "axis-by-two-names": (array(entry('{"size": 1, "numtokens": 1, "batchsize": 2}')),
        ":2: KP825 entry 0, key: axis 'num_tokens' is given twice; keep one of its names"),
    "axis-without-a-rule": (
        array(entry('{"siz": 1, "numtokens": 1}'), entry('{"siz": 2, "zzz": 1, "numtokens": 1}')),
        ":2: KP823 entry 0, key: axis 'siz' has no rule; did you mean 'size'?",
        ":3: KP823 entry 1, key: axis 'zzz' has no rule; known axes are batchsize, dtype, has_bias, num_tokens, numtokens, size"),
    "axis-without-a-default": (array(entry('{"numtokens": 1}'), entry('{"numtokens": 2}')),
        ":2: KP823 entry 0, key: axis 'size' is missing and has no default; give it one in [inputs] default"),
    "keys-of-other-axes": (
        array(entry(), entry("{}"), *(entry(f'{{"size": 1, "numtokens": {n}, "has_bias": true}}') for n in (2, 3))),
        ":4: KP823 entry 2, key: names has_bias, num_tokens, size, and entry 0 num_tokens, size; keys of one file name the same axes"),
    "values-of-other-types": (
        array(entry('{"size": 1.5, "numtokens": "1"}'), entry('{"size": [1], "numtokens": null}')),
        ":2: KP824 entry 0, key: axis 'numtokens' has value '1', which is a text, and must be a whole number",
        ":2: KP824 entry 0, key: axis 'size' has value 1.5, which is a number, and must be a whole number",
        ":3: KP824 entry 1, key: axis 'numtokens' cannot be null, for it has a value in every call",
        ":3: KP824 entry 1, key: axis 'size' must be a number, text, true, false or null, not [1]"),
    "key-twice": (array(entry(), entry("{}"), entry(), entry("{}")),
        ":4: KP825 entry 2: has the key of entry 0 too, and vLLM takes the later one; keep one of them",
        ":5: KP825 entry 3: has the key of entry 1 too, and vLLM takes the later one; keep one of them"),
    "config-of-another-type": (array(entry(config="[4]")),
        ":2: KP502 entry 0: an object is expected, not [4]"),
    "config-with-unknown-field": (array(entry(config='{\n"num_warp": 4}')),
        ":3: KP502 entry 0: field 'num_warp' is not known; did you mean 'num_warps'?"),
    "config-with-a-value-that-no-gpu-takes": (array(entry("{}", '{"num_warps": 3, "num_stages": 0}')),
        ":2: KP508 entry 0: num_stages is 0; it must be a whole number, 1 or more",
        ":2: KP508 entry 0: num_warps is 3; it must be a power of two from 1 to 32"),
}

@pytest.mark.parametrize("name", VLLM)
def test_a_file_of_vllm(name, tmp_path):
    """The line is that of the entry; what vLLM would take silently is told too."""
    content, *lines = VLLM[name]

    def read(path):
        return config_format.loads(path.read_text(), SHOWN, AXES, origin="", platform="nvidia_h200")

    assert problems(read, content, tmp_path) == lines
