"""The command line: one file for each command.

    program             the parser, and what becomes of errors
Inside only:
    console             what commands print with, and their exit statuses
    completion          what a shell completes
    findings            what `check` found, as GitHub, SARIF and JUnit take it
    codes               what codes of problems mean
    options             what commands are declared with, and the options that several have
    load                `load`
    list                `list`
    new                 `new`
    explain             `explain`
    coverage            `coverage`
    schema              `schema`
    documents           what commands on packs, and those of vLLM, print with `--json`
    tuning_documents    what commands on tuned configs print with `--json`
    document_schemas    the JSON Schemas of both
    check               `check`
    autotune            `autotune`
    lock                `lock`
    doctor              `doctor`
    vllm                `vendor`, `import` and `export`
    build               `build`
    warm                `warm`
    show                `show`
    test                `test`
    bench               `bench`
    report              `report`
    watch               files of a pack that change, for `test --watch`
    verbose             what --verbose says while a command runs
    places              what it says of the pack and its files
    terminal            how wide lines are, which colours they have, and the bar while one waits
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns 0 for fine, 1 for findings or failed kernels, 2 for wrong usage."""
    from kernelpkg.cli import program

    return program.main(arguments)


def run() -> NoReturn:
    """Run a command as a whole program, and end it with the status that `main` returns."""
    from kernelpkg.cli import program

    program.run()
