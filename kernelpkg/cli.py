"""The command line: the only module that prints and exits."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NoReturn

from kernelpkg import __version__, configs, discover, doctor, scaffold, schema
from kernelpkg import explain as explaining
from kernelpkg.cases import cases_of
from kernelpkg.errors import KernelpkgError, PackError, Problem, UsageError, suggestion
from kernelpkg.manifest import read_kernel, read_pack

FINE: Final = 0
FOUND: Final = 1
USAGE: Final = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns 0 for fine, 1 for findings or failed kernels, 2 for wrong usage."""
    parser = _parser()
    options, others = parser.parse_known_args(arguments)
    axes = [text for text in others if options.command == "explain" and text[:1] != "-"]
    if len(axes) < len(others):
        wrong = next(text for text in others if text not in axes)
        parser.error(f"argument '{wrong}' is not known")
    if axes:  # argparse takes positional arguments behind an option for unknown
        options.axes = [*options.axes, *axes]
    try:
        status: int = options.run(options)
        sys.stdout.flush()
        return status
    except UsageError as error:
        print(f"kernelpkg: {error}", file=sys.stderr)
        return USAGE
    except KernelpkgError as error:
        print(error, file=sys.stderr)
        return FOUND
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FOUND
    except KeyboardInterrupt:
        print("kernelpkg: interrupted", file=sys.stderr)
        return 130


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(USAGE, f"kernelpkg: {message}; 'kernelpkg --help' lists the commands\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="kernelpkg", description="Helion kernels as packages.")
    parser.add_argument("--version", action="version", version=f"kernelpkg {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, text: str, run: Any, *, pack: bool = True) -> argparse.ArgumentParser:
        found = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
        found.add_argument("--root", type=Path, metavar="DIR", help="a directory that holds packs")
        if pack:
            found.add_argument("--pack", metavar="NAME", help="the pack, where there are several")
        found.add_argument("--json", action="store_true", help="print one JSON document")
        found.set_defaults(run=run)
        return found

    load = command("load", "load a pack and register its ops", _load)
    load.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    load.add_argument(
        "--smoke", action="store_true", help="run each op's smallest case against its reference"
    )
    load.add_argument(
        "--strict", action="store_true", help="exit 1 where an op runs in a worse mode than tuned"
    )
    command("list", "list the packs, their kernels and what is tuned", _list)
    new = command("new", "write a new kernel that loads as it is", _new, pack=False)
    new.add_argument("name", metavar="NAME")
    found = command("schema", "print the JSON Schema of manifests", _schema, pack=False)
    found.add_argument("kind", nargs="?", choices=("kernel", "pack"), default="kernel")
    found.add_argument("--write", action="store_true", help="write both beside the manifests")
    why = command("explain", "say which config a call gets, and why", _explain)
    why.add_argument("op", metavar="OP")
    why.add_argument("axes", nargs="*", metavar="AXIS=VALUE")
    why.add_argument("--platform", required=True, help="a platform or GPU, as in nvidia_h200")
    command("doctor", "say what runs on this machine, and why not more", _doctor, pack=False)
    return parser


def _print_json(document: Any) -> None:
    print(json.dumps(document, indent=2))


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return rows as aligned columns; the first row is the head."""
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def _load(options: argparse.Namespace) -> int:
    from kernelpkg.loader import load  # imports torch and helion, which other commands do without

    with _Progress("loading") as progress:
        report = load(
            options.pack,
            root=options.root,
            device=options.device,
            smoke=options.smoke,
            progress=progress.step,
        )
    for problem in report.problems:
        print(problem, file=sys.stderr)
    if options.json:
        _print_json(report.to_json())
    elif report.kernels:
        head = ["op", "status", "mode", "platform", "cases", "configs", "check", "reason"]
        rows = [
            [
                kernel.op,
                kernel.status,
                kernel.mode or "-",
                kernel.platform,
                str(kernel.cases),
                str(kernel.configs),
                "-" if kernel.check is None else "ok" if kernel.check == "ok" else "FAILED",
                kernel.reason if kernel.status != "failed" else "see above",
            ]
            for kernel in report.kernels
        ]
        print("\n".join(_table([head, *rows])))
        print(_summary(report))
    for kernel in report.kernels:
        if kernel.check not in (None, "ok"):
            print(f"{kernel.op}: check failed: {kernel.check}", file=sys.stderr)
    worse = [k for k in report.kernels if k.mode in ("default", "interpret")]
    return FOUND if not report.ok or (options.strict and worse) else FINE


def _summary(report: Any) -> str:
    counts = {
        status: sum(kernel.status == status for kernel in report.kernels)
        for status in ("registered", "failed", "disabled")
    }
    parts = [
        f"{count} {status}" for status, count in counts.items() if count or status == "registered"
    ]
    checks = [kernel.check == "ok" for kernel in report.kernels if kernel.check is not None]
    if checks:
        parts.append(f"{sum(checks)} of {len(checks)} checks ok")
    where = f"{report.platform}, {report.seconds:.1f} s"
    return f"pack {report.pack}: {', '.join(parts)} ({where})"


class _Progress:
    """A progress bar on a terminal, and nothing elsewhere."""

    def __init__(self, what: str) -> None:
        self._bar: Any = None
        if sys.stderr.isatty() and not os.environ.get("KERNELPKG_NO_PROGRESS"):
            from tqdm import tqdm  # where no bar is shown, not needed

            self._bar = tqdm(desc=what, unit=" kernels", leave=False)

    def __enter__(self) -> _Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def step(self, name: str) -> None:
        if self._bar is not None:
            self._bar.set_postfix_str(name)
            self._bar.update()


def _list(options: argparse.Namespace) -> int:
    packs: list[dict[str, Any]] = []
    problems: list[Problem] = []
    for root in discover.roots(options.root, os.environ):
        for name in root.packs():
            if options.pack not in (None, name):
                continue
            try:
                pack = read_pack(root.path, name)
            except PackError as error:
                problems += error.problems
                continue
            kernels = []
            for kernel in pack.kernels:
                try:
                    spec = read_kernel(root.path, kernel)
                except PackError as error:
                    problems += error.problems
                    continue
                kernels.append(
                    {
                        "name": spec.name,
                        "op": f"{pack.namespace}::{spec.name}",
                        "version": spec.version,
                        "cases": len(cases_of(spec, "tune")),
                        "platforms": list(configs.platforms_of(root.path, spec.name)),
                        "summary": spec.summary,
                    }
                )
            packs.append(
                {
                    "pack": pack.name,
                    "version": pack.version,
                    "origin": root.origin,
                    "kernels": kernels,
                }
            )
    if options.pack is not None and not packs and not problems:
        raise UsageError(
            f"pack '{options.pack}' is not there; 'kernelpkg list' shows those that are"
        )
    for problem in problems:
        print(problem, file=sys.stderr)
    if options.json:
        _print_json({"packs": packs})
    else:
        for found in packs:
            print(f"pack {found['pack']} {found['version']} (from {found['origin']})")
            head = ["op", "version", "grid", "tuned for", "summary"]
            rows = [
                [
                    kernel["op"],
                    str(kernel["version"]),
                    str(kernel["cases"]),
                    ", ".join(kernel["platforms"]) or "-",
                    kernel["summary"],
                ]
                for kernel in found["kernels"]
            ]
            print("\n".join(_table([head, *rows])))
    return FOUND if problems else FINE


def _new(options: argparse.Namespace) -> int:
    root = options.root or Path.cwd()
    files = scaffold.new_kernel(root, options.name, make_pack=options.root is not None)
    if options.json:
        _print_json({"root": str(root), "files": list(files)})
        return FINE
    for file in files:
        print(f"wrote {root / file}")
    print(f"check it with: kernelpkg load --root {root} --smoke")
    return FINE


def _schema(options: argparse.Namespace) -> int:
    if not options.write:
        print(schema.schema_text(options.kind), end="")
        return FINE
    root = options.root or Path.cwd()
    for kind, (file, _) in schema.FILES.items():
        path = root / file
        if not path.parent.is_dir():
            raise UsageError(f"{path.parent} is no directory; go to a pack, or give --root DIR")
        configs.replace_text(path, schema.schema_text(kind))
        print(f"wrote {path}")
    return FINE


def _explain(options: argparse.Namespace) -> int:
    given = {}
    for text in options.axes:
        name, equals, value = text.partition("=")
        if not equals or not name or not value:
            raise UsageError(f"'{text}' is not of the form AXIS=VALUE")
        given[name] = value
    root, name = discover.find_pack(options.pack, options.root, os.environ)
    pack = read_pack(root.path, name)
    kernel = options.op.rpartition("::")[2]
    if kernel not in pack.kernels:
        hint = suggestion(kernel, pack.kernels) or f"; it has {', '.join(pack.kernels)}"
        raise UsageError(f"pack '{name}' has no op '{kernel}'{hint}")
    spec = read_kernel(root.path, kernel)
    found = explaining.explain(pack, spec, options.platform, given)
    if options.json:
        _print_json(found.to_json())
    else:
        print("\n".join(explaining.lines(found)))
    return FINE if found.chosen is not None else FOUND


def _doctor(options: argparse.Namespace) -> int:
    findings = doctor.examine()
    if options.json:
        _print_json(
            {"findings": [{"name": f.name, "status": f.status, "text": f.text} for f in findings]}
        )
    else:
        print("\n".join(_table([[f.name, f.status, f.text] for f in findings])))
    return FOUND if any(finding.status == "missing" for finding in findings) else FINE
