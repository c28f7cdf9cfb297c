"""The command line: the only module that prints and exits.

Each command is a module that declares its arguments and runs; of them only the one that was asked
for is imported, so that `list`, `schema` and `explain` answer in a fraction of the time that one
import of torch takes.
"""

from __future__ import annotations

import atexit
import contextlib
import io
import itertools
import os
import sys
import threading
import time
from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, NoReturn

import click

from kernelpkg import __version__
from kernelpkg.cli.console import (
    FOUND,
    INTERRUPTED,
    USAGE,
    complain,
    forget_held,
    print_held,
    print_json,
    say,
)
from kernelpkg.cli.options import SHARED
from kernelpkg.cli.terminal import COLOUR
from kernelpkg.errors import OPTIONS, KernelpkgError, UsageError, suggestion

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

_COMPLETE: Final = "_KERNELPKG_COMPLETE"
"""What a shell says that something is to be completed with, as click has it."""

_STATUSES: Final = (
    ("0", "fine"),
    ("1", "findings, or kernels that failed"),
    ("2", "wrong usage"),
    ("130", "interrupted"),
)

_VARIABLES: Final = (
    ("KERNELPKG_PATH", "directories that hold packs, separated by colons"),
    ("KERNELPKG_CONFIGS", "directories of configs to use before those of packs"),
    ("KERNELPKG_BUILDS", "directories of builds to use before those of packs"),
    ("KERNELPKG_LAUNCHER", "who launches kernels: c, python or auto"),
    ("KERNELPKG_DISABLE", "ops not to register, separated by commas"),
    ("KERNELPKG_NO_PROGRESS", "if set, no progress bars"),
    ("KERNELPKG_VLLM_ROUTES", "native ops of vLLM to answer: all, none, or a list"),
    ("NO_COLOR", "if set, no colours; FORCE_COLOR turns them on without a terminal too"),
    ("HELION_INTERPRET", "if 1, ops run in Helion's interpreter"),
)

COMMANDS: Final = {
    "load": ("load:run", "load a pack and register its ops"),
    "test": ("test:run", "run each op against its reference, and bind it with Helion"),
    "show": ("show:run", "show one op: schema, axes, rules, cases, routes, structure"),
    "list": ("list:run", "list the packs, their kernels and what is tuned"),
    "new": ("new:run", "write a new kernel that loads as it is"),
    "schema": ("schema:run", "print the JSON Schema of manifests, or of a document of --json"),
    "explain": ("explain:run", "say which config a call gets, and why, or what a code means"),
    "import": ("vllm:import_configs", "import configs from vLLM or Helion into the pack"),
    "export": ("vllm:export_configs", "write the pack's configs in vLLM's format"),
    "vendor": ("vllm:vendor_pack", "write the pack into vLLM's sources"),
    "autotune": ("autotune:run", "search configs on this machine's GPUs"),
    "check": ("check:run", "check a pack: manifests, sources and configs"),
    "bench": ("bench:run", "time ops beside native ops, torch.compile, eager and a copy"),
    "build": ("build:run", "compile a pack ahead, for GPUs that this machine need not have"),
    "warm": ("warm:run", "make ops ready on this machine's GPU, and say what that takes"),
    "lock": ("lock:run", "record what the pack is, or say what has changed since"),
    "coverage": ("coverage:run", "say which calls get which config"),
    "report": ("report:run", "write one page that shows the pack"),
    "doctor": ("doctor:run", "say what runs on this machine, and why not more"),
}
"""The module and function of each command, and what it does; in the order of messages."""

_GROUPS: Final = {
    "Kernels and packs": ("new", "test", "list", "show", "load", "warm", "schema", "doctor"),
    "Tuned configs": (
        *("explain", "coverage", "check", "autotune", "bench", "build", "lock", "report"),
    ),
    "vLLM": ("vendor", "import", "export"),
}
"""The commands in the order of the help."""


class _Program(click.Group):
    """All commands; options that they share may stand before the command too, as those of git."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Take `help [COMMAND]`, or nothing at all, as the option --help."""
        if args[:1] in ([], ["help"]):
            args = [*args[1:2], "--help"]
        rest = super().parse_args(ctx, [*args])
        ctx.obj = args[: len(args) - len(rest) - 1]
        return rest

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find a command, and put the options before it behind it."""
        name, *rest = args
        if name not in COMMANDS and not ctx.resilient_parsing:
            hint = suggestion(name, COMMANDS) or f"; known are {', '.join(COMMANDS)}"
            raise click.UsageError(f"'{name}' is not a command{hint}", ctx)
        return name, self.get_command(ctx, name), [*ctx.obj, *rest]

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        place, text = COMMANDS[cmd_name]
        module, _, function = place.partition(":")
        found: click.Command = getattr(import_module(f"kernelpkg.cli.{module}"), function)
        found.help = f"{text[0].upper()}{text[1:]}."
        return found

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete a command without importing it."""
        from click.shell_completion import CompletionItem  # 3 ms, which no command needs

        commands = [
            CompletionItem(name, help=text)
            for name, (_, text) in COMMANDS.items()
            if name.startswith(incomplete)
        ]
        return [*commands, *click.Command.shell_complete(self, ctx, incomplete)]

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for group, names in _GROUPS.items():
            with formatter.section(group):
                formatter.write_dl([(name, COMMANDS[name][1]) for name in names])
        click.Command.format_options(self, ctx, formatter)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for title, rows in (("Exit status", _STATUSES), ("Environment", _VARIABLES)):
            with formatter.section(title):
                formatter.write_dl(rows)


@click.group(cls=_Program, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="%(prog)s %(version)s")
def _program(**_: Any) -> None:
    """Helion kernels as packages. 'kernelpkg help COMMAND' says more of each."""


_program.params += SHARED.values()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns 0 for fine, 1 for findings or failed kernels, 2 for wrong usage."""
    given = sys.argv[1:] if arguments is None else arguments
    started = time.perf_counter() - (time.process_time() if arguments is None else 0)
    before, spelled = COLOUR.set("auto"), OPTIONS.set(True)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # not every terminal can show a micro
    try:
        if _COMPLETE in os.environ:
            from click.shell_completion import shell_complete

            return shell_complete(_program, {}, "kernelpkg", _COMPLETE, os.environ[_COMPLETE])
        with _program.make_context("kernelpkg", [*given]) as context:
            context.meta["started"] = started
            status: int = _program.invoke(context)
        print_held()
        if sys.stdout is not None:  # it may be closed
            sys.stdout.flush()
        return status
    except click.exceptions.Exit as leaving:  # after --help and --version
        return leaving.exit_code
    except click.UsageError as error:
        return _failed(USAGE, f"kernelpkg: {_wrong(error)}", given)
    except UsageError as error:
        return _failed(USAGE, f"kernelpkg: {error}", given)
    except KernelpkgError as error:
        codes = {problem.code for problem in getattr(error, "problems", ())}
        return _failed(USAGE if codes and codes <= _NO_PACKS else FOUND, error, given)
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
    finally:
        forget_held()
        COLOUR.reset(before)
        OPTIONS.reset(spelled)


def run() -> NoReturn:
    """Run a command as a whole program, and end it.

    Python takes PyTorch and Helion apart at its end, which took 3 s of a load of 12 (two busy
    cores, 2026-11-30), and nobody is better off for it; `atexit` tidies what is to be tidied.
    """
    status = main()
    others = set(threading.enumerate()) - {threading.main_thread()}
    if "torch" in sys.modules and all(thread.daemon for thread in others):
        atexit._run_exitfuncs()
        for stream in filter(None, (sys.stdout, sys.stderr)):
            with contextlib.suppress(OSError, ValueError):  # nobody reads it, or it is closed
                stream.flush()
        os._exit(status)
    raise SystemExit(status)


def _wrong(error: click.UsageError) -> str:
    """Say on one line what click says of wrong usage, with our suggestions."""
    context = error.ctx or click.Context(_program, info_name="kernelpkg")
    if isinstance(error, click.NoSuchOption):
        word = error.option_name
        known = [name for param in context.command.get_params(context) for name in param.opts]
        near = next((name for name in known if name.startswith(word)), word)
        text = f"'{word}' is not an option of '{context.info_name}'{suggestion(near, known)}"
    else:
        text = " ".join(error.format_message().split()).rstrip(".")
        text = text[:1].lower() + text[1:]
        kind = getattr(getattr(error, "param", None), "type", None)
        if isinstance(kind, click.Choice) and isinstance(error, click.BadParameter):
            word = text.partition(": '")[2].partition("'")[0]
            text += suggestion(word, kind.choices)
    return f"{text}; see '{context.command_path} --help'"


def _failed(status: int, why: object, given: Sequence[str]) -> int:
    """Say why a command did nothing; with --json, there is a document of that too."""
    lines = getattr(why, "problems", ()) or str(why).split("\n")
    print_held()
    complain(lines)
    if "--json" in given or ("--output-format", "json") in itertools.pairwise(given):
        print_json({"errors": [*map(str, lines)]})
    print_held()
    return status


def _drop_output() -> None:
    """Let nothing of what was to be printed fail once more when Python ends."""
    if sys.stdout is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


_NO_PACKS: Final = {"KP604", "KP606"}
"""What says that a root is none: it was asked for wrongly, and is no finding of a pack."""
