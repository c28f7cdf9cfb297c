"""What `check` found, in the forms that GitHub, viewers of SARIF and readers of JUnit take."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.etree import ElementTree as ET

from kernelpkg import __version__
from kernelpkg.cli.codes import codes
from kernelpkg.errors import Problem, counted, escaped

_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"


def seen_from(root: Path, here: Path | None) -> Path | None:
    """Return the repository that a pack lies in, or where there is none the current directory.

    GitHub and viewers of SARIF take paths as seen from the repository, wherever a check was run.
    """
    root = Path(os.path.normpath(root))
    return next((path for path in (root, *root.parents) if (path / ".git").exists()), here)


def shown_path(root: Path, path: str, top: Path | None) -> str:
    """Return the path of a finding as seen from a directory; absolute outside of it."""
    place = Path(os.path.normpath(root / path))
    return place.relative_to(top).as_posix() if top and place.is_relative_to(top) else str(place)


def github(findings: Sequence[Problem], root: Path, top: Path | None) -> Iterator[str]:
    """Yield a workflow command for each finding, which GitHub shows beside its line."""
    for finding in findings:
        kind = "error" if finding.severity == "error" else "warning"
        properties = {"file": shown_path(root, finding.path, top)}
        properties |= {"line": str(finding.line)} if finding.line else {}
        properties["title"] = finding.code
        said = ",".join(f"{name}={_property(value)}" for name, value in properties.items())
        yield f"::{kind} {said}::{_data(finding.message)}"


def _data(text: str) -> str:
    """Escape what ends a workflow command."""
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    """Escape what ends a property of a workflow command, too."""
    return _data(text).replace(":", "%3A").replace(",", "%2C")


def sarif(findings: Sequence[Problem], root: Path, top: Path | None) -> dict[str, Any]:
    """Return a log of SARIF 2.1.0: a rule for each code that occurs, a result for each finding."""
    known, rules = codes(), sorted({finding.code for finding in findings})
    driver = {
        "name": "kernelpkg",
        "version": __version__,
        "rules": [
            {
                "id": code,
                "shortDescription": {"text": known[code].means},
                "help": {"text": known[code].remedy, "markdown": known[code].remedy},
            }
            for code in rules
        ],
    }
    results = [
        {
            "ruleId": finding.code,
            "ruleIndex": rules.index(finding.code),
            "level": "error" if finding.severity == "error" else "warning",
            "message": {"text": finding.message},
            "locations": [
                {
                    "physicalLocation": {
                        "artifactLocation": _artifact(shown_path(root, finding.path, top)),
                        "region": {"startLine": max(finding.line, 1)},  # 0 is the whole file
                    }
                }
            ],
        }
        for finding in findings
    ]
    run = {"tool": {"driver": driver}, "results": results}
    return {"$schema": _SCHEMA, "version": "2.1.0", "runs": [run]}


def _artifact(path: str) -> dict[str, str]:
    """Return where a file is: below the sources' root, which viewers know, or anywhere."""
    if os.path.isabs(path):
        return {"uri": f"file://{quote(path)}"}
    return {"uri": quote(path), "uriBaseId": "%SRCROOT%"}


def junit(findings: Sequence[Problem], pack: str, kernels: Sequence[str]) -> str:
    """Return JUnit XML: a test case for each kernel, and for each other file with a finding.

    Errors are its failure; what is unverified is its output.
    """
    found: dict[str, list[Problem]] = defaultdict(list, {kernel: [] for kernel in kernels})
    for finding in findings:
        folder, _, rest = finding.path.partition("/")
        kernel = rest.partition("/")[0]
        ours = folder in ("kernels", "configs") and kernel in kernels
        found[kernel if ours else finding.path].append(finding)
    errors = {
        name: [str(problem) for problem in problems if problem.severity == "error"]
        for name, problems in found.items()
    }
    counts = {"tests": str(len(found)), "failures": str(sum(map(bool, errors.values())))}
    suites = ET.Element("testsuites", counts)
    suite = ET.SubElement(suites, "testsuite", {"name": f"pack {pack}", **counts, "errors": "0"})
    for name, problems in found.items():
        where = {"classname": f"kernelpkg.{pack}", "name": escaped(name)}
        case = ET.SubElement(suite, "testcase", where)
        if wrong := errors[name]:
            said = {"message": counted(len(wrong), "error"), "type": "KP"}
            ET.SubElement(case, "failure", said).text = "\n".join(wrong)
        if unsure := [str(p) for p in problems if p.severity != "error"]:
            ET.SubElement(case, "system-out").text = "\n".join(unsure)
    ET.indent(suites)
    text: bytes = ET.tostring(suites, encoding="us-ascii", xml_declaration=True)
    return text.decode("ascii")
