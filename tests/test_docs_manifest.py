"""docs/reference/manifest.md: its examples are read, its table of matches is computed, every key
is in it."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import tomli_w

from kernelpkg.configs.picker import compile_picker
from kernelpkg.manifest.decode import Either, ListOf, MapOf, Table
from kernelpkg.manifest.keys import INITS, KERNEL_MANIFEST, PACK_MANIFEST, REFUSED_SETTINGS
from kernelpkg.manifest.opschema import parse_schema
from kernelpkg.manifest.spec import Rule
from kernelpkg.packs.read import read_kernel, read_pack
from kernelpkg.packs.signature import hint

PAGE = Path(__file__).parents[1] / "docs" / "reference" / "manifest.md"
TEXT = PAGE.read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```toml ?(\w*)\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
WHOLE = next(text for kind, text in BLOCKS if kind == "kernel")
PACKS = [text for kind, text in BLOCKS if kind == "pack"]
FRAGMENTS = [text for kind, text in BLOCKS if not kind]

KERNEL = "import torch\ndef scale_rows(input: torch.Tensor, factor: float) -> torch.Tensor: ...\n"
HOST = """\
def reference(input, factor): ...
def pick(args, keys): ...
def make_inputs(axes, generator, device): ...
def values(axes, args, generator): ...
def possible(output, input, factor): ...
"""


def merged(base, more):
    """Put a fragment into a manifest: tables are merged, rules and grids of the fragment count."""
    found = dict(base)
    for key, value in more.items():
        both = isinstance(value, dict) and isinstance(found.get(key), dict)
        found[key] = merged(found[key], value) if both else value
    return found


def write(root, manifest):
    directory = root / "kernels" / "scale_rows"
    directory.mkdir(parents=True)
    (directory / "kernel.toml").write_text(manifest, encoding="utf-8")
    (directory / "kernel.py").write_text(KERNEL, encoding="utf-8")
    (directory / "host.py").write_text(HOST, encoding="utf-8")


def test_the_whole_manifest_is_one(tmp_path):
    """The first example is read without a problem."""
    write(tmp_path, WHOLE)
    spec = read_kernel(tmp_path, "scale_rows")
    assert spec.key_axes == ("dtype", "hidden_size", "num_tokens")
    assert len(spec.grids) == 1


@pytest.mark.parametrize("fragment", FRAGMENTS, ids=lambda text: text.split("\n")[0].strip("[]"))
def test_a_fragment_goes_into_it(tmp_path, fragment):
    """Each fragment changes the first example, and leaves it without a problem."""
    base, more = tomllib.loads(WHOLE), tomllib.loads(fragment)
    if "key" in more:  # a fragment with a rule takes the place of the rule of its axis
        kept = [rule for rule in base["key"] if rule["axis"] != more["key"][0]["axis"]]
        more["key"] = kept + more["key"]
    if "properties" in more:  # what has them has no reference
        del base["accuracy"]
    for name in more.get("accuracy", ()):  # bounds of one output are bounds of one kind
        base["accuracy"].pop(name, None)
    found = merged(base, more)
    assert found != base
    write(tmp_path, tomli_w.dumps(found))
    if "op" in more:  # its function has the arguments of its schema
        source = tmp_path / "kernels/scale_rows/kernel.py"
        schema = parse_schema(found["op"]["schema"])
        given = ", ".join(map("{}: {}".format, schema.arg_names, map(hint, schema.args)))
        result = ", ".join(["torch.Tensor"] * schema.returns)
        result = result if schema.returns == 1 else f"tuple[{result}]"
        source.write_text(f"import torch\ndef scale_rows({given}) -> {result}: ...\n")
        source.with_name("host.py").write_text("def reference(*args): ...\n")
    assert read_kernel(tmp_path, "scale_rows").name == "scale_rows"


def test_the_pack_is_one(tmp_path):
    """The example of a pack is read without a problem."""
    (pack,) = PACKS
    write(tmp_path, WHOLE)
    (tmp_path / "manifests").mkdir()
    (tmp_path / "manifests" / "demo.toml").write_text(pack, encoding="utf-8")
    found = read_pack(tmp_path, "demo")
    assert found.kernels == ("scale_rows",)
    assert found.routes[0].target == "_C::scale_rows"


MATCHES = re.findall(
    r"^\| `(\w+)`(?:, `(\w+) = ([^`]+)`)? \| (.* \| .* \| .* \| .* \| .*) \|$", TEXT, re.M
)


@pytest.mark.parametrize(
    ("match", "option", "value", "cells"), MATCHES, ids=lambda part: str(part)[:12]
)
def test_the_table_of_matches_is_true(match, option, value, cells):
    """What the table says of each kind is what the picker does."""
    tuned = [{"n": 16}, {"n": 64}, {"n": 256}]
    options = {option: tomllib.loads(f"v = {value}")["v"]} if option else {}
    if "bounds" in options:
        options["bounds"] = tuple(options["bounds"])
    picker = compile_picker([Rule(axis="n", match=match, **options)], tuned, {})
    for call, cell in zip((16, 40, 48, 300, 8), cells.split(" | "), strict=True):
        index = picker.pick((call,)).index
        assert cell.split(",")[0] == ("miss" if index is None else str(tuned[index]["n"])), call


def test_the_table_of_matches_is_whole():
    """Every kind has a row."""
    kinds = KERNEL_MANIFEST.keys["key"].kind.item.keys["match"].kind.words
    assert {match for match, *_ in MATCHES} == set(kinds)


SECTIONS = {
    "kernel": "Kernel and op",
    "op": "Kernel and op",
    "backward": "Backward",
    "helion": "Kernel and op",
    "guard": "Axes and guards",
    "key": "Rules",
    "miss": "Rules",
    "inputs": "Inputs",
    "grid": "Inputs",
    "args": "Arguments",
    "accuracy": "Accuracy",
    "properties": "Properties",
    **dict.fromkeys(["PACK", "pack", "platforms", "vllm", "routes"], "Packs"),
}
OVERVIEW = TEXT.split("\n## ")[0]


def keys_of(kind, table=""):
    """Yield every key of a kind, with the table that it stands in."""
    if isinstance(kind, Table):
        for name, key in kind.keys.items():
            yield table, name
            yield from keys_of(key.kind, name)
    elif isinstance(kind, ListOf | MapOf):
        yield from keys_of(kind.item, table)
    elif isinstance(kind, Either):
        for one in kind.kinds:
            yield from keys_of(one, table)


@pytest.mark.parametrize(
    ("table", "name"),
    [
        *sorted({(table, name) for table, name in keys_of(KERNEL_MANIFEST) if table}),
        *sorted(set(keys_of(PACK_MANIFEST, "PACK"))),
    ],
)
def test_every_key_is_documented(table, name):
    """Each key has a row, in a section or with the name of its table."""
    section = re.search(rf"^## {SECTIONS[table]}$(.*?)(?=^## |\Z)", TEXT, re.M | re.S)[1]
    rows = [line for line in section.split("\n") if line.startswith("| ")]
    named = re.compile(rf"`(\[+)?(\w+[\].]+ ?)?{name}\]*`")
    assert any(named.search(line.split(" | ")[0]) for line in rows), (table, name)


def test_the_overview_has_every_table():
    """The keys at the top of a kernel manifest are listed before all sections."""
    found = set(re.findall(r"`\[*(\w+)\]*`", "".join(re.findall(r"^\| (.+?) \|", OVERVIEW, re.M))))
    assert found == set(KERNEL_MANIFEST.keys)


@pytest.mark.parametrize("word", [*INITS, *REFUSED_SETTINGS])
def test_every_word_is_documented(word):
    """Words that a key may hold, or may not, are listed."""
    assert f"`{word}`" in TEXT
