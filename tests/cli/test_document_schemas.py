"""The schemas of what commands print with `--json`; conftest.py holds all output to them."""

from __future__ import annotations

import json
import runpy
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jsonschema
import pytest

from kernelpkg import cli
from kernelpkg.cli import console
from kernelpkg.cli.document_schemas import DOCUMENTS, document_rows, document_schema
from kernelpkg.cli.program import COMMANDS

SCRIPT = Path(__file__).parents[2] / "docs/reference/documents.py"


def objects(schema: Any) -> Iterator[dict[str, Any]]:
    """Yield all schemas of objects within one."""
    if isinstance(schema, dict):
        if schema.get("type") == "object":
            yield schema
        for part in schema.values():
            yield from objects(part)


def test_every_command_has_a_schema():
    assert {*DOCUMENTS} == {*COMMANDS}


@pytest.mark.parametrize("command", DOCUMENTS)
def test_a_schema_is_one_and_takes_no_keys_but_its_own(command):
    schema = document_schema(command)
    jsonschema.Draft202012Validator.check_schema(schema)
    for found in objects(schema["$defs"]):
        if "properties" in found:
            assert found["additionalProperties"] is False
            assert {*found["required"]} <= {*found["properties"]}
        else:
            assert "additionalProperties" in found
    kinds = [part["$ref"].rpartition("/")[2] for part in schema["anyOf"]]
    for kind in kinds:
        assert schema["$defs"][kind]["properties"]["format"] == {"enum": [console.FORMAT]}
        assert schema["$defs"][kind]["required"][0] == "format"


def test_schema_prints_that_of_a_command(capsys):
    assert cli.main(["schema", "lock"]) == 0
    assert json.loads(capsys.readouterr().out) == document_schema("lock")


def test_the_schema_of_a_command_is_not_written(demo, capsys):
    assert cli.main(["schema", "lock", "--write", "--root", str(demo.root)]) == 2
    assert capsys.readouterr().err == (
        "kernelpkg: --write writes the schemas of manifests; leave out 'lock'\n"
    )


@pytest.mark.parametrize(
    ("command", "changes"),
    [
        ("list", {"packs": None}),
        ("list", {"format": 2}),
        ("list", {"more": 1}),
        ("explain", {"outcome": "good"}),
        ("explain", {"axes": [1]}),
        ("lock --check", {"drift": [{}]}),
    ],
    ids=["null", "format", "more", "word", "array", "lacking"],
)
def test_another_document_does_not_validate(demo, capsys, command, changes):
    given = {"explain": ["twice", "num_tokens=4", "--platform", "nvidia_h200"]}
    words = [*command.split(), *given.get(command, ()), "--json", "--root", str(demo.root)]
    assert cli.main(["lock", "--no-fingerprints", "--root", str(demo.root)]) == 0
    capsys.readouterr()
    cli.main(words)
    document = json.loads(capsys.readouterr().out)
    check = jsonschema.Draft202012Validator(document_schema(words[0]))
    assert check.is_valid(document)
    assert not check.is_valid({**document, **changes})


@pytest.mark.parametrize(
    "words",
    [
        "list",
        "show twice",
        "explain twice num_tokens=4 --platform nvidia_h200",
        "explain KP107",
        "coverage",
        "coverage --platform nvidia_h100",
        "check",
        "lock --no-fingerprints",
        "lock --check --no-fingerprints",
        "doctor",
        "new softmax",
        "schema --write",
        "report --out page.html",
        "build --check --platform nvidia_h200",
        "autotune --dry-run --platform nvidia_h200",
    ],
)
@pytest.mark.parametrize("broken", [False, True], ids=["sound", "broken"])
def test_what_a_command_prints_is_as_its_schema_says(
    demo, capsys, monkeypatch, documents, words, broken
):
    """The others need PyTorch or a tree of vLLM, and are held to theirs in their own tests."""
    monkeypatch.chdir(demo.root)
    cli.main(["lock", "--no-fingerprints"])
    demo.kernel("other")
    demo.configs("twice")
    if broken:
        demo.edit("kernels/twice/kernel.toml", "(Tensor input) -> Tensor", "(Tensor) -> Tensr")
        demo.edit("configs/twice/nvidia_h200.json", "{", "[")
    capsys.readouterr()
    documents.clear()
    status = cli.main([*words.split(), "--json"])
    document = json.loads(capsys.readouterr().out)
    assert document["format"] == 1
    assert documents == ({"failure"} if "errors" in document else {words.split()[0]})
    assert broken or status == (1 if words.startswith(("build", "lock --check")) else 0)


@pytest.mark.parametrize("command", DOCUMENTS)
def test_wrong_usage_and_an_interrupt_are_documents_too(capsys, monkeypatch, documents, command):
    check = jsonschema.Draft202012Validator(document_schema(command))
    documents.clear()
    assert cli.main([command, "--no-such-option", "--json"]) == 2
    wrong = json.loads(capsys.readouterr().out)
    assert check.is_valid(wrong)
    assert wrong["errors"][0].startswith("kernelpkg: '--no-such-option' is not an option")

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("kernelpkg.cli.options.Command.invoke", interrupted)
    words = {"explain": ["x"], "show": ["x"], "vendor": ["--into", "x"], "import": ["vllm", "x"]}
    words["export"] = words["import"]
    assert cli.main([command, *words.get(command, ()), "--json"]) == 130
    stopped = json.loads(capsys.readouterr().out)
    assert check.is_valid(stopped)
    assert (stopped["errors"], documents) == (["kernelpkg: interrupted"], {"failure"})


def test_the_page_has_every_key_of_every_document():
    written = SimpleNamespace(**runpy.run_path(str(SCRIPT)))
    text = written.PAGE.read_text(encoding="utf-8")
    assert text == written.page(), "run `make docs`"
    for command, kinds in DOCUMENTS.items():
        section = text.partition(f"\n## {command}\n")[2].partition("\n## ")[0]
        for kind in kinds.values():
            for path, words in list(document_rows(kind))[1:]:  # that of `format` is left out
                assert f"| `{path}` | {words} |" in section
