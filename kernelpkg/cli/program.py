"""The command line: the only module that prints and exits.

Each command imports what it needs when it runs: `list`, `schema` and `explain` answer in a
fraction of the time that one import of torch takes.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

from kernelpkg import __version__
from kernelpkg.cli import autotune, check, coverage, lock, vllm
from kernelpkg.cli.console import (
    FINE,
    FOUND,
    INTERRUPTED,
    USAGE,
    Progress,
    complain,
    folder,
    print_json,
    print_table,
)
from kernelpkg.errors import KernelpkgError, UsageError, suggestion

if TYPE_CHECKING:
    from kernelpkg.manifest.spec import PackSpec

_EPILOG: Final = """\
exit status: 0 fine, 1 findings or failed kernels, 2 wrong usage, 130 interrupted
environment: KERNELPKG_PATH         directories that hold packs, separated by colons
             KERNELPKG_CONFIGS      directories of configs that go before those of packs
             KERNELPKG_DISABLE      ops that are not registered, separated by commas
             KERNELPKG_NO_PROGRESS  no progress bars
             KERNELPKG_VLLM_ROUTES  native ops of vLLM that are answered: all, none, or a list
             HELION_INTERPRET       if 1, ops run in Helion's interpreter
"""

_GROUPS: Final = {
    "kernels and packs": ("new", "list", "load", "schema", "doctor"),
    "tuned configs": ("explain", "coverage", "check", "autotune", "lock"),
    "vLLM": ("vendor", "import", "export"),
}
"""The commands in the order of the help."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns 0 for fine, 1 for findings or failed kernels, 2 for wrong usage."""
    given = sys.argv[1:] if arguments is None else arguments
    try:
        options = _options(given)
        status: int = options.run(options)
        if sys.stdout is not None:  # it may be closed
            sys.stdout.flush()
        return status
    except UsageError as error:
        return _failed(USAGE, f"kernelpkg: {error}", given)
    except KernelpkgError as error:
        return _failed(FOUND, str(error), given)
    except BrokenPipeError:  # who read the output has seen enough of it
        _drop_output()
        return FOUND
    except OSError as error:  # a disk that is full, most often
        _drop_output()
        place = "the output" if error.filename is None else error.filename
        print(f"kernelpkg: {place}: {error.strerror}", file=sys.stderr)
        return FOUND
    except KeyboardInterrupt:
        return _failed(INTERRUPTED, "kernelpkg: interrupted", given)


def _failed(status: int, text: str, given: Sequence[str]) -> int:
    """Say why a command did nothing; with --json, there is a document of that too."""
    print(text, file=sys.stderr)
    if "--json" in given:
        print_json({"errors": text.splitlines()})
    return status


def _drop_output() -> None:
    """Let nothing of what was to be printed fail once more when Python ends."""
    if sys.stdout is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; '{self.prog} --help' says what there is")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        known = action.choices
        if known is not None and value not in known:
            what = "command" if action.dest == "command" else "choice"
            what = f"value of {action.option_strings[0]}" if action.option_strings else what
            hint = suggestion(str(value), known) or f"; known are {', '.join(map(str, known))}"
            raise argparse.ArgumentError(None, f"'{value}' is no {what}{hint}")


_MANY: Final = {"explain": "axes", "coverage": "ops", "check": "ops", "autotune": "ops"}
"""The commands that take any number of positional arguments, and what they are called."""


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = _parser()
    options, others = parser.parse_known_args(arguments)
    many = _MANY.get(options.command)
    more = [text for text in others if many is not None and text[:1] != "-"]
    if len(more) < len(others):
        wrong = next(text for text in others if text not in more)
        known = options.parser._option_string_actions if wrong[:1] == "-" else ()
        word = wrong.partition("=")[0]
        hint = suggestion(next((name for name in known if name.startswith(word)), word), known)
        options.parser.error(f"'{wrong}' is no argument of '{options.command}'{hint}")
    if many is not None:  # argparse takes positional arguments behind an option for unknown
        setattr(options, many, [*getattr(options, many), *more])
    return options


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="kernelpkg",
        usage="%(prog)s [-h] [--version] COMMAND ...",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"kernelpkg {__version__}")
    commands = parser.add_subparsers(
        dest="command", required=True, metavar="COMMAND", prog="kernelpkg", help=argparse.SUPPRESS
    )
    texts: dict[str, str] = {}

    def command(
        name: str,
        text: str,
        run: Callable[[argparse.Namespace], int],
        *,
        pack: bool = True,
        configs: bool = False,
    ) -> argparse.ArgumentParser:
        texts[name] = text
        described = f"{text[0].upper()}{text[1:]}."
        found = commands.add_parser(name, description=described, allow_abbrev=False)
        found.add_argument("--root", type=folder, metavar="DIR", help="the directory of the pack")
        if pack:
            found.add_argument("--pack", metavar="NAME", help="the pack, where there are several")
        if configs:
            found.add_argument(
                "--configs",
                type=folder,
                action="append",
                default=[],
                metavar="DIR",
                help="a directory of configs that goes before the pack's; may be repeated",
            )
        found.add_argument("--json", action="store_true", help="print one JSON document")
        found.set_defaults(run=run, parser=found)
        return found

    load = command("load", "load a pack and register its ops", _load, configs=True)
    load.add_argument(
        "--device", choices=("auto", "cpu", "cuda"), default="auto", help="where checks run"
    )
    load.add_argument(
        "--smoke", action="store_true", help="run each op's smallest case against its reference"
    )
    load.add_argument(
        "--strict", action="store_true", help="exit 1 too where an op is not tuned or prebuilt"
    )
    load.add_argument(
        "--locked", action="store_true", help="load only kernels that are as kernelpkg.lock says"
    )
    command("list", "list the packs, their kernels and what is tuned", _list, configs=True)
    new = command("new", "write a new kernel that loads as it is", _new, pack=False)
    new.add_argument("name", metavar="NAME", help="the name of the kernel and of its op")
    found = command("schema", "print the JSON Schema of manifests", _schema, pack=False)
    found.add_argument("kind", nargs="?", choices=("kernel", "pack"), default="kernel")
    found.add_argument("--write", action="store_true", help="write both beside the manifests")
    why = command("explain", "say which config a call gets, and why", _explain, configs=True)
    why.add_argument("op", metavar="OP", help="the name of an op, with or without namespace")
    why.add_argument("axes", nargs="*", metavar="AXIS=VALUE", help="a fact of the call")
    why.add_argument(
        "--platform", required=True, metavar="NAME", help="a platform or GPU, as in nvidia_h200"
    )
    vllm.add(command)
    autotune.add(command)
    check.add(command)
    lock.add(command)
    coverage.add(command)
    command("doctor", "say what runs on this machine, and why not more", _doctor, pack=False)
    parser.description = _description(texts)
    return parser


def _description(texts: Mapping[str, str]) -> str:
    """Return what the help begins with: the commands, in groups."""
    lines = ["Helion kernels as packages. 'kernelpkg COMMAND --help' says what a command takes."]
    for group, names in _GROUPS.items():
        lines += ["", f"{group}:", *(f"    {name:<8}  {texts[name]}" for name in names)]
    return "\n".join(lines)


def _load(options: argparse.Namespace) -> int:
    try:
        from kernelpkg.runtime.load import load
    except ImportError as error:
        raise KernelpkgError(
            f"kernelpkg: '{error.name}' cannot be imported ({error}); 'kernelpkg doctor' says more"
        ) from None
    with Progress() as progress, contextlib.redirect_stdout(sys.stderr):
        report = load(
            options.pack,
            root=options.root,
            device=options.device,
            smoke=options.smoke,
            configs=options.configs,
            locked=options.locked,
            progress=progress.step,
        )
    complain((*report.notes, *report.failures()))
    if options.json:
        print_json(report.to_json())
    elif report.kernels:
        print_table(report.rows())
        print(report.summary())
    return FINE if report.ok and (report.best or not options.strict) else FOUND


def _list(options: argparse.Namespace) -> int:
    from kernelpkg.cli import list as list_command
    from kernelpkg.configs import search_path
    from kernelpkg.packs import find

    def overlay(pack: PackSpec) -> PackSpec:
        return search_path.with_overlays(pack, options.configs, os.environ)

    roots = find.roots(options.root, os.environ)
    packs, problems = list_command.survey(roots, options.pack, overlay)
    if not packs and not problems:
        if options.pack is not None:
            find.find_pack(options.pack, options.root, os.environ)
        raise UsageError(f"{options.root} has no packs; 'kernelpkg new NAME --root DIR' makes one")
    complain(problems)
    if options.json:
        print_json({"packs": [pack.to_json() for pack in packs]})
    else:
        for number, pack in enumerate(packs):
            print(f"{chr(10) * bool(number)}pack {pack.pack} {pack.version} (from {pack.origin})")
            print_table(pack.rows())
    return FOUND if problems else FINE


def _open(options: argparse.Namespace) -> PackSpec:
    from kernelpkg.packs.find import open_pack

    return open_pack(options.pack, options.root, options.configs, os.environ)


def _new(options: argparse.Namespace) -> int:
    from kernelpkg.cli import new as new_command

    root = options.root or Path()
    made = new_command.new_kernel(root, options.name, make_pack=options.root is not None)
    if options.json:
        document = {"root": str(root), "files": list(made.files), "remarks": list(made.remarks)}
        print_json(document)
        return FINE
    for file in made.files:
        print(f"wrote {root / file}")
    for remark in made.remarks:
        print(remark)
    print(f"check it with: python -m kernelpkg load --root {root} --smoke")
    return FINE


def _schema(options: argparse.Namespace) -> int:
    from kernelpkg.files import replace_text
    from kernelpkg.manifest import keys

    if not options.write:
        print(keys.schema_text(options.kind), end="")
        return FINE
    root = options.root or Path()
    paths = {root / file: kind for kind, (file, _) in keys.FILES.items()}
    for path in paths:
        if not path.parent.is_dir():
            raise UsageError(f"{path.parent} is no directory; go to a pack, or give --root DIR")
    for path, kind in paths.items():
        try:
            replace_text(path, keys.schema_text(kind))
        except OSError as error:
            raise UsageError(f"{path} cannot be written: {error.strerror}") from None
    if options.json:
        print_json({"files": [str(path) for path in paths]})
    else:
        print("\n".join(f"wrote {path}" for path in paths))
    return FINE


def _explain(options: argparse.Namespace) -> int:
    from kernelpkg.configs import explain
    from kernelpkg.packs.find import chosen_kernels
    from kernelpkg.packs.read import read_kernel

    given: dict[str, str] = {}
    for text in options.axes:
        name, equals, value = text.partition("=")
        if not equals or not name or not value:
            raise UsageError(f"'{text}' is not of the form AXIS=VALUE")
        if name in given:
            raise UsageError(f"axis '{name}' is given twice")
        given[name] = value
    pack = _open(options)
    (kernel,) = chosen_kernels(pack, [options.op])
    spec = read_kernel(Path(pack.root), kernel)
    found = explain.explain(pack, spec, options.platform, given)
    if options.json:
        print_json(found.to_json())
    else:
        print("\n".join(explain.lines(found)))
    return FINE if found.chosen is not None else FOUND


def _doctor(options: argparse.Namespace) -> int:
    from kernelpkg.cli import doctor
    from kernelpkg.packs import find

    findings = doctor.examine(find.roots(options.root, os.environ), os.environ)
    if options.json:
        document = [{"name": f.name, "status": f.status, "text": f.text} for f in findings]
        print_json({"findings": document})
    else:
        print_table([(f.name, f.status, f.text) for f in findings])
    return FOUND if any(finding.status == "missing" for finding in findings) else FINE
