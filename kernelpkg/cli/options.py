"""What commands are declared with: click's, and the options that several of them have."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

import click
from attrs import field, frozen

from kernelpkg.cli import terminal, verbose
from kernelpkg.errors import UsageError

_F = TypeVar("_F", bound=Callable[..., Any])


@frozen(kw_only=True)
class Shared:
    """What was said by the options that all commands share; a command may have fewer of them.

    `here` is the directory that the command is run in, unless it is gone; `started` is when people
    began to wait, by `time.perf_counter`.
    """

    root: Path | None = None
    pack: str | None = None
    configs: tuple[Path, ...] = ()
    as_json: bool = False
    quiet: bool = False
    verbose: bool = False
    here: Path | None = None
    started: float = field(factory=time.perf_counter)

    @property
    def seconds(self) -> float:
        """How long people have waited."""
        return time.perf_counter() - self.started


class Folder(click.Path):
    """A directory's name; an empty one, as of a variable that is not set, is refused."""

    def __init__(self) -> None:
        super().__init__(file_okay=False)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        if not value:
            self.fail("the name of a directory is empty", param, ctx)
        return Path(value)


def count(text: str) -> int:
    """Take a number of what there has to be one of."""
    if not re.fullmatch("[0-9]{1,18}", text) or int(text) < 1:
        raise click.BadParameter(f"'{text}' is not a whole number, 1 or more")
    return int(text)


_UNITS: Final = {"": 1, "s": 1, "m": 60, "h": 3600}


def duration(text: str) -> int:
    """Take a time, as 90, 30s, 10m or 1h; returns seconds."""
    found = re.fullmatch("0*([1-9][0-9]{0,9})([smh]?)", text)
    if not found:
        raise click.BadParameter(f"'{text}' is not a time such as 30s, 10m or 1h")
    return int(found[1]) * _UNITS[found[2]]


def percent(text: str) -> float:
    """Take a percentage, with or without its sign; returns the share that it is."""
    with contextlib.suppress(ValueError):
        found = float(text.removesuffix("%")) / 100
        if 0 <= found < 1:
            return found
    raise click.BadParameter(f"'{text}' is not a percentage of at least 0 and below 100")


def listed(text: str) -> list[str]:
    """Return the names of a list with commas."""
    return [name for name in map(str.strip, text.split(",")) if name]


def names(_: click.Context, __: click.Parameter, given: Sequence[str]) -> tuple[str, ...]:
    """Take the names of an option that may be repeated, and takes several with commas."""
    return tuple(name for text in given for name in listed(text))


def _here() -> Path | None:
    with contextlib.suppress(FileNotFoundError):
        return Path.cwd()
    return None


def _colour(_: click.Context, __: click.Parameter, given: str) -> None:
    terminal.COLOUR.set(given)


SHARED: Final[dict[str, click.Option]] = {
    "root": click.Option(
        ["--root"], type=Folder(), metavar="DIR", help="the directory of the pack"
    ),
    "pack": click.Option(["--pack"], metavar="NAME", help="the pack, if there are several"),
    "configs": click.Option(
        ["--configs"],
        type=Folder(),
        multiple=True,
        metavar="DIR",
        help="a directory of configs to use before the pack's; may be repeated",
    ),
    "as_json": click.Option(["--json", "as_json"], is_flag=True, help="print one JSON document"),
    "quiet": click.Option(
        ["-q", "--quiet"], is_flag=True, help="print only what is wrong or unverified"
    ),
    "verbose": click.Option(
        ["-v", "--verbose"],
        is_flag=True,
        help="say more: where files are, what takes how long, tracebacks",
    ),
    "color": click.Option(
        ["--color"],
        type=click.Choice(("auto", "always", "never")),
        default="auto",
        expose_value=False,
        callback=_colour,
        help="colours: on terminals (auto), always or never",
    ),
}
"""The options that all commands share, by the attribute of `Shared`."""


class Command(click.Command):
    """A command, whose function gets the shared options as one value."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as error:
            error.ctx = error.ctx or ctx  # an option without its value has none
            raise

    def invoke(self, ctx: click.Context) -> Any:
        given = {name: ctx.params.pop(name) for name in SHARED if name in ctx.params}
        shared = Shared(**given, here=_here(), started=ctx.meta["started"])
        if shared.quiet and shared.verbose:
            raise UsageError("--quiet says less, and --verbose more; give one of them")
        with contextlib.ExitStack() as stack:
            if shared.verbose:
                from kernelpkg.cli import places  # it reads packs, which not every command does

                stack.enter_context(verbose.told(shared.started))
                for line in places.lines(shared, {**given, **ctx.params}):
                    verbose.note(line)
            return ctx.invoke(self.callback, shared, **ctx.params)  # type: ignore[arg-type]

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for title, kind in (("Arguments", click.Argument), ("Options", click.Option)):
            params = [param for param in self.get_params(ctx) if isinstance(param, kind)]
            if rows := list(filter(None, (param.get_help_record(ctx) for param in params))):
                with formatter.section(title):
                    formatter.write_dl(rows)


def command(
    *, pack: bool = True, configs: bool = False, quiet: bool = False
) -> Callable[[Callable[..., int]], Command]:
    """Declare a command of a function that takes `Shared`, and what its own options say."""
    has = {"pack": pack, "configs": configs, "quiet": quiet}
    without = {name for name, wanted in has.items() if not wanted}

    def declare(run: Callable[..., int]) -> Command:
        made = click.command(cls=Command)(run)
        made.params += [option for name, option in SHARED.items() if name not in without]
        return made

    return declare


class _Argument(click.Argument):
    """An argument with a line in the help, which click has from 8.5 on."""

    def __init__(self, *names: Any, said: str, **how: Any) -> None:
        super().__init__(*names, **how)
        self.said = said

    def make_metavar(self, *_: Any) -> str:
        shown = self.human_readable_name if self.required else f"[{self.human_readable_name}]"
        return shown if self.nargs == 1 else f"{shown}..."

    def get_help_record(self, ctx: click.Context) -> tuple[str, str]:
        return self.human_readable_name, self.said


def argument(name: str, metavar: str, said: str, **how: Any) -> Callable[[_F], _F]:
    """Declare an argument; `said` is what the help says of it."""
    return click.argument(name, cls=_Argument, metavar=metavar, said=said, **how)


def complete_op(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """Complete the name of an op."""
    from kernelpkg.cli import completion  # it reads packs, which not every command does

    return completion.ops(ctx.params, incomplete)


def _complete_platform(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    from kernelpkg.cli import completion

    return completion.platform_names(ctx.params, incomplete)


OP: Final = argument(
    "op", "OP", "the name of an op, with or without namespace", shell_complete=complete_op
)
OPS: Final = argument(
    "ops",
    "OP",
    "ops, with or without namespace; all if none is given",
    nargs=-1,
    shell_complete=complete_op,
)

_PLATFORM: Final = partial(
    click.option,
    "--platform",
    "platforms",
    multiple=True,
    callback=names,
    shell_complete=_complete_platform,
    metavar="NAME",
)
PLATFORM: Final = _PLATFORM(
    help="a platform or GPU, such as nvidia_h200; may be repeated, or list several with commas"
)
ONE_PLATFORM: Final = _PLATFORM(help="a platform or GPU, such as nvidia_h200")
"""Of commands that take one, which ask `only`."""

AXES: Final = click.option(
    "--axis",
    "axes",
    multiple=True,
    metavar="AXIS=VALUE[,VALUE]",
    help="only cases with these values; may be repeated",
)

MODELS: Final = click.option(
    "--models",
    multiple=True,
    callback=names,
    metavar="NAME",
    help="a model of the pack's [models]; may be repeated, or list several with commas",
)

BUILDS: Final = click.option(
    "--builds",
    type=Folder(),
    multiple=True,
    metavar="DIR",
    help="a directory of builds to use before the pack's; may be repeated",
)

DEVICE: Final = click.option(
    "--device",
    type=click.Choice(("auto", "cpu", "cuda")),
    default="auto",
    help="where ops run; auto takes a GPU if there is one",
)

JOBS: Final = click.option("--jobs", type=count, metavar="N", help="how many to run at once")


def only(platforms: Sequence[str]) -> str | None:
    """Return the platform of a command that takes one, if it was given."""
    if len(platforms) > 1:
        raise UsageError(f"this command takes one --platform, not {', '.join(platforms)}")
    return platforms[0] if platforms else None
