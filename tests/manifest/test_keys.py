"""The JSON Schemas and the strict decoder, held against each other over good and bad manifests.

JSON knows one kind of number, so that a stock validator takes 1.0 for a whole number, as JSON
Schema wants it; TOML knows two, and the decoder converts nothing. A whole number that is spelled
1.0 is the one document on which they differ, and a test of its own holds that it is. For the
others the validator is told to keep TOML's kinds apart, and that `$` ends a text (in ECMA-262 it
does; Python's stands before a last line break too).
"""

# ruff: noqa: E501  # a table of values

from __future__ import annotations

import itertools
import json
import math
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from kernelpkg.manifest.keys import FILES, KERNEL_MANIFEST, PACK_MANIFEST, json_schema, schema_text

ROOT = Path(__file__).parents[2]
TABLES = {"kernel": KERNEL_MANIFEST, "pack": PACK_MANIFEST}
MANIFESTS = [
    *(("kernel", path) for path in sorted(ROOT.glob("kernels/*/kernel.toml"))),
    ("kernel", ROOT / "tests/golden/good/kernels/x/kernel.toml"),
    ("pack", ROOT / "manifests/kernelpkg.toml"),
    ("pack", ROOT / "tests/golden/good/manifests/good.toml"),
]
STRUCTURE = {"KP010", "KP011", "KP012", "KP013"}


def pattern(validator: Any, wanted: str, value: Any, schema: Any) -> Iterator[Any]:
    if isinstance(value, str) and not re.search(wanted.removesuffix("$") + r"\Z", value):
        yield jsonschema.ValidationError(f"{value!r} does not match {wanted!r}")


STOCK = jsonschema.Draft202012Validator
STRICT = jsonschema.validators.extend(
    STOCK,
    {"pattern": pattern},
    type_checker=STOCK.TYPE_CHECKER.redefine("integer", lambda _, value: type(value) is int),
)


def decodes(kind: str, document: Any) -> bool:
    """Whether the decoder finds nothing wrong with the structure of a document."""
    found = []
    TABLES[kind].decode(document, (), lambda at, code, message: found.append((at, code, message)))
    assert {code for _, code, _ in found} <= STRUCTURE
    return not found


def paths(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if at:
        yield at
    if isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from paths(item, (*at, key))


def get(value: Any, at: tuple[Any, ...]) -> Any:
    return get(value[at[0]], at[1:]) if at else value


def put(around: Any, at: tuple[Any, ...], value: Any = ...) -> Any:
    """Return a document with a value at a path, or without it; all that is off the path is shared."""
    changed = around.copy()
    if len(at) > 1:
        changed[at[0]] = put(around[at[0]], at[1:], value)
    elif value is ...:
        del changed[at[0]]
    else:
        changed[at[0]] = value
    return changed


def validator(base: Any, kind: str, document: Any) -> Any:
    """Return a validator that judges the parts of a document once.

    Thousands of mutations of a document share all but one path with it. What was found valid is
    valid wherever it is met again, by the identity of the part and of its schema.
    """
    made = jsonschema.validators.extend(base)
    descend = made.descend
    kept = [get(document, at) for at in paths(document)]  # so that no other has its identity
    parts = {id(part) for part in kept if isinstance(part, dict | list)}
    valid: set[tuple[int, int]] = set()

    def remembered(self: Any, instance: Any, schema: Any, **options: Any) -> Iterator[Any]:
        mark = id(instance), id(schema)
        errors = [] if mark in valid else list(descend(self, instance, schema, **options))
        if not errors and id(instance) in parts:
            valid.add(mark)
        yield from errors

    made.descend = remembered
    return made(json_schema(kind))


VALUES: list[Any] = [
    0, 1, -1, 2, 10**30, 0.5, -0.5, 1.0, 2.0, 1e300, True, False, "", "x", "*", "none", "a b", "a\n",
    "größe", "host.py:f", "host.py:f\n", "../x.py:f", "host.py", "a:b", "exact", "randn", "randn|x",
    "input.shape[0]", [], [1], ["x"], ["x", "x"], [[]], [{}], [{"when": "x"}], [{"axis": "x"}], {},
    {"a": 1}, {"value": 1}, {"shape": [1, "x"]}, {"shape": [-1]}, {"x": {}}, {"x": {"op": "y"}},
    {"A::b": {"op": "y"}}, {"not a name": 1},
]  # fmt: skip


def mutations(document: Any) -> Iterator[Any]:
    """Drop each key, add unknown ones, and put values of all kinds at each place."""
    for at in paths(document):
        if any(type(key) is int and key > 1 for key in at):
            continue  # entries of an array are alike
        yield put(document, at)
        for value in VALUES:
            yield put(document, at, value)
        if isinstance(get(document, at), dict):
            for name, value in (("unknown_key", 1), ("not a name", 1), ("when", "x"), ("use", [])):
                yield put(document, (*at, name), value)


@pytest.mark.parametrize("kind", FILES)
def test_a_schema_is_a_schema(kind):
    """What is written is JSON Schema of the draft that it names, and closed at its top."""
    found = json_schema(kind)
    STOCK.check_schema(found)
    assert found["$schema"] == STOCK.META_SCHEMA["$schema"]
    assert found["additionalProperties"] is False
    assert found["required"][0] == "edition"


@pytest.mark.parametrize("kind", FILES)
def test_the_files_are_up_to_date(kind):
    """Editors read what the decoder does; 'kernelpkg schema' writes it anew."""
    path = ROOT / FILES[kind][0]
    assert path.read_text(encoding="utf-8") == schema_text(kind), "run 'kernelpkg schema'"
    assert json.loads(schema_text(kind)) == json_schema(kind)


@pytest.mark.parametrize(
    ("kind", "path"),
    MANIFESTS,
    ids=[
        f"{kind}-{path.parent.name if kind == 'kernel' else path.stem}" for kind, path in MANIFESTS
    ],
)
def test_both_take_each_manifest_and_agree_on_its_mutations(kind, path):
    """For each document the decoder and the schema have one verdict."""
    document = tomllib.loads(path.read_text(encoding="utf-8"))
    strict = validator(STRICT, kind, document)
    assert decodes(kind, document)
    assert strict.is_valid(document)
    verdicts = {True: 0, False: 0}
    # The manifests of kernels are much alike: each takes another seventh of its mutations.
    place, step = MANIFESTS.index((kind, path)), 7 if "golden" not in path.parts else 1
    for changed in itertools.islice(mutations(document), place % step, None, step):
        verdict = decodes(kind, changed)
        assert strict.is_valid(changed) == verdict, changed
        verdicts[verdict] += 1
    assert min(verdicts.values()) > 20


def test_a_whole_number_written_with_a_point_is_the_one_difference():
    """A stock validator takes 1.0 where a whole number is wanted, and nothing else too much."""
    path = ROOT / "tests/golden/good/kernels/x/kernel.toml"
    document = tomllib.loads(path.read_text(encoding="utf-8"))
    stock, strict = (validator(base, "kernel", document) for base in (STOCK, STRICT))
    seen = 0
    for changed in itertools.islice(mutations(document), 0, None, 3):
        if stock.is_valid(changed) == strict.is_valid(changed):
            continue
        seen += 1
        assert stock.is_valid(changed)
        (reason, *_) = strict.iter_errors(changed)
        leaves = [reason, *(reason.context or ())]
        assert any(
            (isinstance(leaf.instance, float) and leaf.instance.is_integer())
            or (isinstance(leaf.instance, str) and leaf.instance.endswith("\n"))
            for leaf in leaves
        )
    assert seen > 0
    pointed = put(document, ("kernel", "version"), 1.0)
    assert stock.is_valid(pointed)
    assert not decodes("kernel", pointed)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_numbers_that_json_cannot_hold_are_refused(value):
    """TOML has nan and inf; JSON does not, and neither does a manifest."""
    path = ROOT / "tests/golden/good/kernels/x/kernel.toml"
    document = tomllib.loads(path.read_text(encoding="utf-8"))
    for at in paths(document):
        assert not decodes("kernel", put(document, at, value)) or "settings" in at
