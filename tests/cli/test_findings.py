"""What `check` found, as GitHub, viewers of SARIF and readers of JUnit take it."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from urllib.parse import unquote
from xml.etree import ElementTree as ET

import pytest

import kernelpkg
from kernelpkg import cli
from kernelpkg.cli import findings
from kernelpkg.cli.codes import codes
from kernelpkg.errors import Problem

ROOT = Path("/srv/packs")
WRONG = Problem(path="configs/twice/a.json", line=7, code="KP210", message="is off; correct it")
OPEN = Problem(path="manifests/x.toml", code="KP202", severity="unverified", message="is open")


def command(**changes):
    problem = Problem(**{"path": "a", "code": "KP210", "message": "m", **changes})
    (line,) = findings.github([problem], ROOT, ROOT)
    return line


def test_a_finding_is_a_command_of_github():
    assert list(findings.github([WRONG, OPEN], ROOT, ROOT.parent)) == [
        "::error file=packs/configs/twice/a.json,line=7,title=KP210::is off; correct it",
        "::warning file=packs/manifests/x.toml,title=KP202::is open",
    ]


def test_what_would_end_a_command_is_escaped():
    """The rules of actions/toolkit: a message may have colons and commas, a property may not."""
    assert command(message="100%: a,\nb\r") == "::error file=a,title=KP210::100%25: a,%0Ab%0D"
    assert command(path="a,b:c%") == "::error file=a%2Cb%3Ac%25,title=KP210::m"


@pytest.mark.parametrize(
    ("here", "shown"),
    [
        ("/srv", "packs/a/b"),
        ("/srv/packs/a", "b"),
        ("/srv/other", "/srv/packs/a/b"),
        (None, "/srv/packs/a/b"),
    ],
    ids=["above", "inside", "beside", "gone"],
)
def test_paths_are_as_seen_from_a_directory(here, shown):
    assert findings.shown_path(ROOT, "a/b", None if here is None else Path(here)) == shown


def test_configs_of_an_operator_lie_where_they_lie():
    assert findings.shown_path(ROOT, "/mine/twice/a.json", Path("/mine")) == "twice/a.json"


def test_sarif_has_a_rule_for_each_code_and_a_result_for_each_finding():
    log = findings.sarif([WRONG, OPEN, WRONG], ROOT, ROOT)
    assert (log["version"], log["$schema"]) == (
        "2.1.0",
        "https://json.schemastore.org/sarif-2.1.0.json",
    )
    (run,) = log["runs"]
    driver = run["tool"]["driver"]
    assert (driver["name"], driver["version"]) == ("kernelpkg", kernelpkg.__version__)
    assert [rule["id"] for rule in driver["rules"]] == ["KP202", "KP210"]
    assert driver["rules"][1]["shortDescription"] == {"text": codes()["KP210"].means}
    assert run["results"][0] == {
        "ruleId": "KP210",
        "ruleIndex": 1,
        "level": "error",
        "message": {"text": "is off; correct it"},
        "locations": [
            {
                "physicalLocation": {
                    "artifactLocation": {
                        "uri": "configs/twice/a.json",
                        "uriBaseId": "%SRCROOT%",
                    },
                    "region": {"startLine": 7},
                }
            }
        ],
    }
    for result in run["results"]:
        assert driver["rules"][result["ruleIndex"]]["id"] == result["ruleId"]
        assert result["level"] in ("error", "warning")
        (location,) = result["locations"]
        assert location["physicalLocation"]["region"]["startLine"] >= 1
    assert run["results"][1]["level"] == "warning"


def test_names_of_files_are_uris_in_sarif():
    problems = [
        Problem(path=path, code="KP201", message="m") for path in ("a b/ä%.json", "/away/x y")
    ]
    (run,) = findings.sarif(problems, ROOT, ROOT)["runs"]
    places = [r["locations"][0]["physicalLocation"]["artifactLocation"] for r in run["results"]]
    assert places == [
        {"uri": "a%20b/%C3%A4%25.json", "uriBaseId": "%SRCROOT%"},
        {"uri": "file:///away/x%20y"},
    ]
    assert unquote(places[0]["uri"]) == "a b/ä%.json"


def test_junit_has_a_case_for_each_kernel_and_each_other_file():
    hostile = Problem(path="kernels/twice/kernel.py", code="KP114", message="<&\x00\ufffe é")
    text = findings.junit([WRONG, hostile, OPEN], "demo", ["thrice", "twice"])
    assert text.isascii()
    suites = ET.fromstring(text)
    (suite,) = suites
    for element in (suites, suite):
        assert (element.get("tests"), element.get("failures")) == ("3", "1")
    assert [(case.get("classname"), case.get("name")) for case in suite] == [
        ("kernelpkg.demo", "thrice"),
        ("kernelpkg.demo", "twice"),
        ("kernelpkg.demo", "manifests/x.toml"),
    ]
    good, bad, unsure = suite
    assert len(good) == 0
    (failure,) = bad
    assert (failure.tag, failure.get("message")) == ("failure", "2 errors")
    assert failure.text == f"{WRONG}\n{hostile}"
    (output,) = unsure
    assert (output.tag, output.text) == ("system-out", str(OPEN))


@pytest.fixture
def broken(demo, on_demo):
    """Checks the pack `demo` with one error in a form; returns status, stdout and stderr."""
    demo.configs("twice")
    demo.edit("configs/twice/nvidia_h200.json", '"num_tokens": 4', '"num_tokens": 4.5')
    return lambda *words: on_demo("check", *words)


def test_every_form_has_the_same_findings_and_the_status(broken):
    status, out, _ = broken("--json")
    number = len(json.loads(out)["findings"])
    assert (status, number) == (1, 3)
    assert broken("--output-format", "json") == (1, out, "")
    status, out, _ = broken("--output-format", "github")
    assert (status, sum(line.startswith("::") for line in out.splitlines())) == (1, number)
    assert "level 0: 1 error, 2 unverified\n" in out
    status, out, _ = broken("--output-format", "sarif")
    assert (status, len(json.loads(out)["runs"][0]["results"])) == (1, number)
    status, out, _ = broken("--output-format", "junit")
    assert (status, ET.fromstring(out).get("failures")) == (1, "1")


def test_two_forms_are_wrong_usage(broken):
    status, _, err = broken("--output-format", "sarif", "--json")
    assert status == 2
    assert err == "kernelpkg: --json is --output-format json, and not sarif; give one of them\n"


@pytest.mark.parametrize("at", [".", "packs", "packs/demo", "packs/demo/kernels/twice"])
def test_paths_are_those_of_the_repository_wherever_the_check_is_run(
    demo, capsys, monkeypatch, tmp_path, at
):
    (tmp_path / "repository/.git").mkdir(parents=True)
    (tmp_path / "repository/packs").mkdir()
    repository = tmp_path / "repository"
    demo.edit("kernels/twice/kernel.toml", "(Tensor input) -> Tensor", "(Tensor input) -> Tensr")
    demo.root.rename(repository / "packs/demo")
    monkeypatch.chdir(repository / at)
    root = os.path.relpath(repository / "packs/demo")
    assert cli.main(["check", "--output-format", "github", "--root", root]) == 1
    places = re.findall("::error file=([^,]+),", capsys.readouterr().out)
    assert places == ["packs/demo/kernels/twice/kernel.toml"]
    assert cli.main(["check", "--output-format", "sarif", "--root", root]) == 1
    (run,) = json.loads(capsys.readouterr().out)["runs"]
    (location,) = run["results"][0]["locations"]
    artifact = location["physicalLocation"]["artifactLocation"]
    assert artifact == {"uri": places[0], "uriBaseId": "%SRCROOT%"}


def test_configs_that_are_given_by_a_relative_path_are_found_in_the_repository(
    demo, capsys, monkeypatch
):
    (demo.root / ".git").mkdir()
    mine = demo.root / "mine/twice"
    mine.mkdir(parents=True)
    (mine / "nvidia_h200.json").write_text("{")
    monkeypatch.chdir(demo.root / "kernels")
    assert cli.main(["check", "--output-format", "github", "--configs", "../mine"]) == 1
    assert "::error file=mine/twice/nvidia_h200.json,line=1," in capsys.readouterr().out


def test_where_json_was_asked_for_errors_are_a_document(on_demo):
    status, out, err = on_demo("check", "twise", "--output-format", "json")
    assert (status, json.loads(out)) == (2, {"format": 1, "errors": err.splitlines()})
