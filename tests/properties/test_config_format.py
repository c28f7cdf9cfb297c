"""Any config file of vLLM's comes back from the store; any other text ends in problems."""

from __future__ import annotations

import json
import string
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attrs import frozen
from hypothesis import given, settings
from hypothesis import strategies as st

from kernelpkg.configs import store
from kernelpkg.errors import PackError
from kernelpkg.expr.language import DTYPES
from kernelpkg.expr.types import ValueType
from kernelpkg.manifest.spec import AxisType
from kernelpkg.vllm.config_format import MARK, KeyAxes, dumps, loads, with_vllm_keys

WHOLE = st.integers(-(10**18) + 1, 10**18 - 1)
LONG = st.integers(-(2**63), 2**63 - 1)
VALUES: dict[ValueType, st.SearchStrategy[Any]] = {
    "whole": WHOLE,
    "number": WHOLE | st.floats(allow_nan=False, allow_infinity=False),
    "flag": st.booleans(),
    "dtype": st.sampled_from(DTYPES),
}
TYPES: tuple[ValueType, ...] = tuple(VALUES)
NAMES = st.text(string.ascii_lowercase + "_0", min_size=1, max_size=6).filter(lambda n: n != MARK)
FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "block_sizes": st.lists(st.sampled_from([1, 2, 4096]), max_size=3),
    "num_warps": st.sampled_from([1, 32]),
    "num_stages": st.integers(1, 9),
    "indexing": st.lists(st.sampled_from(["pointer", "tensor_descriptor"]), max_size=3),
    "range_flattens": st.lists(st.none() | st.booleans(), max_size=3),
    "loop_orders": st.lists(st.permutations([0, 1]), max_size=2),
    "maxnreg": st.none() | LONG,
    "advanced_controls_file": st.text(st.characters(exclude_categories=["Cs"]), max_size=5),
    "waves_per_eu": LONG | st.floats(allow_nan=False, allow_infinity=False),
    "xcd_remap": st.booleans(),
}
CONFIGS = st.fixed_dictionaries({}, optional=FIELDS).flatmap(
    lambda found: st.permutations(list(found.items())).map(dict)
)


@frozen
class Shipped:
    """Axes of a kernel, and a document of vLLM's for it."""

    axes: KeyAxes
    named: tuple[str, ...]
    document: list[dict[str, Any]]


def typed(kinds: Mapping[str, ValueType]) -> dict[str, AxisType]:
    return {axis: AxisType(kind=kind, low=None, absent=False) for axis, kind in kinds.items()}


def are_apart(names: Mapping[str, str], axes: list[str]) -> bool:
    """Whether no name of vLLM's is that of another axis, which has no other name."""
    return not any(
        name != axis and name in axes and name not in names.values() for name, axis in names.items()
    )


@st.composite
def shipped(draw: st.DrawFn, kinds: tuple[ValueType, ...] = TYPES) -> Shipped:
    """Draw axes with random names, some renamed or filled in, and entries that name the others."""
    ours = draw(st.lists(NAMES, min_size=1, max_size=4, unique=True))
    types = {axis: draw(st.sampled_from(kinds)) for axis in ours}
    theirs = draw(st.permutations(ours) | st.lists(NAMES, min_size=4, max_size=4, unique=True))
    names = {name: axis for name, axis in zip(theirs, ours, strict=False) if draw(st.booleans())}
    axes = KeyAxes(
        kernel="x",
        types=typed(types),
        defaults={axis: draw(VALUES[types[axis]]) for axis in ours[1:] if draw(st.booleans())},
        names=names if are_apart(names, ours) else {},
    )
    lacking = {axis for axis in axes.defaults if draw(st.booleans())}
    named = [axis for axis in ours if axis not in lacking]
    keys = draw(
        st.lists(
            st.tuples(*(VALUES[types[axis]] for axis in named)), max_size=5, unique_by=identities
        )
    )
    keyed = [
        {axes.theirs.get(a, a): value for a, value in zip(named, key, strict=True)} for key in keys
    ]
    found = draw(st.permutations([*keyed, *([{}] if draw(st.booleans()) or not keyed else [])]))
    document = [{"key": key, "config": draw(CONFIGS)} for key in found]
    return Shipped(axes, tuple(named), document)


def identities(key: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple((value,) if isinstance(value, bool) else value for value in key)


def through_the_store(axes: KeyAxes, text: str) -> Any:
    """Return what comes back from the store for a text of vLLM's."""
    file = loads(text, "x.json", axes, origin="vLLM", platform="p")
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "p.json")
        store.write(path, file)
        read = store.read(path, "p.json", "x", "p", tuple(axes.types), axes.defaults)
    assert read.cases == file.cases
    back = dumps(with_vllm_keys(read, axes.defaults), tuple(axes.types), axes.theirs)
    assert back.endswith("]\n")
    return json.loads(back)


def plain(document: Any) -> str:
    """Return a text that is equal for equal documents: 1, 1.0 and true are three values."""
    return json.dumps(document, sort_keys=True)


@given(shipped())
def test_what_is_imported_is_exported_as_it_was(found: Shipped) -> None:
    """Entries, their order, names and values come back, through the file of the store."""
    assert plain(through_the_store(found.axes, json.dumps(found.document))) == plain(found.document)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["key", "config", "n", "default", "n_1"]), inner, max_size=3
        )
    ),
    max_leaves=12,
)
AXES = KeyAxes(
    kernel="x", types=typed({"n": "whole", "dtype": "dtype"}), defaults={"dtype": "int8"}
)


@settings(max_examples=300)
@given(JSON.map(json.dumps) | st.text(max_size=20))
def test_any_text_gives_a_file_or_problems(text: str) -> None:
    """Whatever a file holds, reading it ends in a file that can be written, or in problems."""
    try:
        file = loads(text, "x.json", AXES, origin="vLLM", platform="p")
    except PackError as error:
        assert all(problem.message and problem.path == "x.json" for problem in error.problems)
    else:
        assert json.loads(store.dumps(file))["kernel"] == "x"
