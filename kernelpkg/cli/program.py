"""The command line: the only module that prints and exits.

Each command is a module that declares its arguments and runs; of them only the one that was asked
for is imported, so that `list`, `schema` and `explain` answer in a fraction of the time that one
import of torch takes.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any, Final, NoReturn

from kernelpkg import __version__
from kernelpkg.cli.console import FOUND, INTERRUPTED, USAGE, folder, print_json, say
from kernelpkg.errors import KernelpkgError, UsageError, suggestion

_EPILOG: Final = """\
exit status: 0 fine, 1 findings or failed kernels, 2 wrong usage, 130 interrupted
environment: KERNELPKG_PATH         directories that hold packs, separated by colons
             KERNELPKG_CONFIGS      directories of configs that go before those of packs
             KERNELPKG_BUILDS       directories of builds that go before those of packs
             KERNELPKG_LAUNCHER     who launches kernels: c, python or auto
             KERNELPKG_DISABLE      ops that are not registered, separated by commas
             KERNELPKG_NO_PROGRESS  no progress bars
             KERNELPKG_VLLM_ROUTES  native ops of vLLM that are answered: all, none, or a list
             HELION_INTERPRET       if 1, ops run in Helion's interpreter
"""

_COMMANDS: Final = {
    "load": ("load", "load a pack and register its ops"),
    "test": ("test", "run each op against its reference, and bind it with Helion"),
    "show": ("show", "show one op whole: schema, axes, rules, cases, routes, structure"),
    "list": ("list", "list the packs, their kernels and what is tuned"),
    "new": ("new", "write a new kernel that loads as it is"),
    "schema": ("schema", "print the JSON Schema of manifests"),
    "explain": ("explain", "say which config a call gets, and why"),
    "import": ("vllm", "take configs of vLLM's or Helion's into the pack"),
    "export": ("vllm", "write the pack's config files as vLLM's"),
    "vendor": ("vllm", "write the pack into vLLM's sources"),
    "autotune": ("autotune", "search configs on this machine's GPUs"),
    "check": ("check", "check a pack: manifests, sources and configs"),
    "build": ("build", "compile a pack ahead, for GPUs that need not be there"),
    "warm": ("warm", "make ops ready on this machine's GPU, and say what that takes"),
    "lock": ("lock", "record what the pack is, or say what has changed since"),
    "coverage": ("coverage", "say what calls get which config"),
    "doctor": ("doctor", "say what runs on this machine, and why not more"),
}
"""The module of each command, which adds it, and what it does; in the order of messages."""

_GROUPS: Final = {
    "kernels and packs": ("new", "test", "list", "show", "load", "warm", "schema", "doctor"),
    "tuned configs": ("explain", "coverage", "check", "autotune", "build", "lock"),
    "vLLM": ("vendor", "import", "export"),
}
"""The commands in the order of the help."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns 0 for fine, 1 for findings or failed kernels, 2 for wrong usage."""
    given = sys.argv[1:] if arguments is None else arguments
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # not every terminal can show a micro
    try:
        options = _options(given)
        status: int = options.run(options)
        if sys.stdout is not None:  # it may be closed
            sys.stdout.flush()
        return status
    except UsageError as error:
        return _failed(USAGE, f"kernelpkg: {error}", given)
    except KernelpkgError as error:
        codes = {problem.code for problem in getattr(error, "problems", ())}
        return _failed(USAGE if codes and codes <= _NO_PACKS else FOUND, str(error), given)
    except BrokenPipeError:  # who read the output has seen enough of it
        _drop_output()
        return FOUND
    except OSError as error:
        if error.filename is not None:
            return _failed(FOUND, f"kernelpkg: {error.filename}: {error.strerror}", given)
        _drop_output()  # to a disk that is full, most often
        say(f"kernelpkg: the output: {error.strerror}", error=True)
        return FOUND
    except KeyboardInterrupt as error:  # of another signal, it has the status
        status = error.args[0] if error.args else INTERRUPTED
        return _failed(status, "kernelpkg: interrupted", given)


def _failed(status: int, text: str, given: Sequence[str]) -> int:
    """Say why a command did nothing; with --json, there is a document of that too."""
    say(text, error=True)
    if "--json" in given:
        print_json({"errors": text.split("\n")})
    return status


def _drop_output() -> None:
    """Let nothing of what was to be printed fail once more when Python ends."""
    if sys.stdout is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


_NO_PACKS: Final = {"KP606"}
"""What says that a root has no packs: it was asked for wrongly, and is no finding of a pack."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; '{self.prog} --help' says what there is")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        known = action.choices
        if known is not None and value not in known:
            what = "command" if action.dest == "command" else "choice"
            what = f"value of {action.option_strings[0]}" if action.option_strings else what
            hint = suggestion(str(value), known) or f"; known are {', '.join(map(str, known))}"
            raise argparse.ArgumentError(None, f"'{value}' is not a {what}{hint}")


_AHEAD: Final = {"--root": 2, "--pack": 2, "--configs": 2, "--json": 1}
"""The options of all commands, which may stand before the command, and how many words each is."""


def _command_first(given: Sequence[str]) -> list[str]:
    """Put what stands before the command behind it."""
    place = 0
    while place < len(given) and (name := given[place].partition("=")[0]) in _AHEAD:
        place += 1 if "=" in given[place] else _AHEAD[name]
    return [*given[place : place + 1], *given[:place], *given[place + 1 :]]


def _options(words: Sequence[str]) -> argparse.Namespace:
    given = _command_first(words)
    parser = _parser(next((word for word in given if word[:1] != "-"), ""))
    options, others = parser.parse_known_args(given)
    positional = options.parser._get_positional_actions()
    many = next((action.dest for action in positional if action.nargs == "*"), None)
    more = [text for text in others if many is not None and text[:1] != "-"]
    if len(more) < len(others):
        wrong = next(text for text in others if text not in more)
        known = options.parser._option_string_actions if wrong[:1] == "-" else ()
        word = wrong.partition("=")[0]
        hint = suggestion(next((name for name in known if name.startswith(word)), word), known)
        options.parser.error(f"'{wrong}' is not an argument of '{options.command}'{hint}")
    if many is not None:  # argparse takes positional arguments behind an option for unknown
        setattr(options, many, [*getattr(options, many), *more])
    return options


def _parser(asked: str) -> argparse.ArgumentParser:
    """Return the parser of all commands, of which only the one that is asked for has arguments."""
    parser = _Parser(
        prog="kernelpkg",
        usage="%(prog)s [-h] [--version] COMMAND ...",
        description=_description(),
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"kernelpkg {__version__}")
    commands = parser.add_subparsers(
        dest="command", required=True, metavar="COMMAND", prog="kernelpkg", help=argparse.SUPPRESS
    )
    parsers = {
        name: commands.add_parser(
            name, description=f"{text[0].upper()}{text[1:]}.", allow_abbrev=False
        )
        for name, (_, text) in _COMMANDS.items()
    }

    def command(
        name: str,
        run: Callable[[argparse.Namespace], int],
        *,
        pack: bool = True,
        configs: bool = False,
    ) -> argparse.ArgumentParser:
        """Give a command the arguments that all have; returns its parser, to add its own."""
        found = parsers[name]
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

    if asked in _COMMANDS:
        import_module(f"kernelpkg.cli.{_COMMANDS[asked][0]}").add(command)
    return parser


def _description() -> str:
    """Return what the help begins with: the commands, in groups."""
    lines = ["Helion kernels as packages. 'kernelpkg COMMAND --help' says what a command takes."]
    for group, names in _GROUPS.items():
        lines += ["", f"{group}:", *(f"    {name:<8}  {_COMMANDS[name][1]}" for name in names)]
    return "\n".join(lines)
