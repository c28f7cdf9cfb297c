"""Any config file of vLLM's comes back from the store; any other text ends in problems."""

from __future__ import annotations

import json
import string
import tempfile
from pathlib import Path
from typing import Any

from attrs import frozen
from hypothesis import given, settings
from hypothesis import strategies as st

from kernelpkg.configs import store
from kernelpkg.errors import PackError
from kernelpkg.expr.language import DTYPES
from kernelpkg.expr.types import ValueType
from kernelpkg.vllm.config_format import dumps, loads, with_vllm_keys
from kernelpkg.vllm.vllmkeys import MARK, KeyAxes

WHOLE = st.integers(-(10**18) + 1, 10**18 - 1)
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
    "maxnreg": st.none() | st.integers(),
    "advanced_controls_file": st.text(st.characters(exclude_categories=["Cs"]), max_size=5),
    "waves_per_eu": st.integers() | st.floats(allow_nan=False, allow_infinity=False),
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

    def text_keys(self) -> dict[str, Any]:
        """Return the document as an older release has it."""
        return {
            "_".join(f"{name}_{value}" for name, value in entry["key"].items()) or "default": entry[
                "config"
            ]
            for entry in self.document
        }


@st.composite
def shipped(draw: st.DrawFn, kinds: tuple[ValueType, ...] = TYPES) -> Shipped:
    """Draw axes with random names, some renamed or filled in, and entries that name the others."""
    ours = draw(st.lists(NAMES, min_size=1, max_size=4, unique=True))
    types = {axis: draw(st.sampled_from(kinds)) for axis in ours}
    theirs = draw(st.permutations(ours) | st.lists(NAMES, min_size=4, max_size=4, unique=True))
    names = {name: axis for name, axis in zip(theirs, ours, strict=False) if draw(st.booleans())}
    axes = KeyAxes(
        kernel="x",
        types=types,
        defaults={axis: draw(VALUES[types[axis]]) for axis in ours[1:] if draw(st.booleans())},
        names={} if list(KeyAxes(kernel="x", types=types, names=names).name_problems()) else names,
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


def through_the_store(axes: KeyAxes, text: str, platform: str | None = "p") -> Any:
    """Return what comes back from the store for a text of vLLM's."""
    (file,) = loads(text, "x.json", axes, origin="vLLM", platform=platform)
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


@given(shipped(("whole", "flag", "dtype")))
def test_keys_that_are_texts_are_the_same_keys_or_are_refused(found: Shipped) -> None:
    """A key that is a text gives what it was made from, unless its names make it ambiguous."""
    document = found.text_keys()
    try:
        back = through_the_store(found.axes, json.dumps({"p": document}), platform=None)
    except PackError as error:
        assert all("in several ways" in problem.message for problem in error.problems)
    else:
        assert plain(back) == plain(found.document)


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
AXES = KeyAxes(kernel="x", types={"n": "whole", "dtype": "dtype"}, defaults={"dtype": "int8"})


@settings(max_examples=300)
@given(JSON.map(json.dumps) | st.text(max_size=20), st.none() | st.just("p"))
def test_any_text_gives_files_or_problems(text: str, platform: str | None) -> None:
    """Whatever a file holds, reading it ends in files that can be written, or in problems."""
    try:
        files = loads(text, "x.json", AXES, origin="vLLM", platform=platform)
    except PackError as error:
        assert all(problem.message and problem.path == "x.json" for problem in error.problems)
    else:
        for file in files:
            assert json.loads(store.dumps(file))["kernel"] == "x"
