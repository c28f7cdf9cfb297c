"""The configs of a kernel without a manifest: read for one platform, picked by a function.

Before: `runtime/register`, which makes a plan of both. After: `runtime/dispatch`, which asks it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from kernelpkg.configs import store
from kernelpkg.configs.selection import HELION_DEFAULT, Chosen
from kernelpkg.configs.tuned_key import ConfigPicker, KeyPicker, TunedKey
from kernelpkg.errors import ConfigError, PackError, Problem, quoted
from kernelpkg.manifest.document import JsonPath, json_lines, parse_json
from kernelpkg.manifest.helion_config import Config, Tunables
from kernelpkg.manifest.spec import Scalar

Miss = Literal["default", "error"]
"""What a call that no config is tuned for gets: Helion's default config, or an error."""

ConfigsDir = str | os.PathLike[str] | None
"""A directory of <op>/<platform>.json, if there is one."""


class PickedPlan:
    """The configs of a kernel without a manifest: its picker's, the `{}` case, Helion's default.

    `find_platform` is asked when the platform matters, so that a module that registers kernels
    without configs does not start CUDA.
    """

    def __init__(
        self,
        op_name: str,
        picker: ConfigPicker | None,
        configs_dir: ConfigsDir,
        find_platform: Callable[[], str],
        *,
        miss: Miss = "default",
        tunables: Tunables = tuple,
    ) -> None:
        self.op_name = op_name
        self.miss = miss
        self._find_platform = find_platform
        self.configs: Mapping[TunedKey, Config] = {}
        if configs_dir is not None or miss == "error":
            self.configs = platform_configs(op_name, self.platform, configs_dir, tunables)
        self.picker = KeyPicker(picker, op_name, self.configs)
        self._chosen = {key: self._tuned(key) for key in self.configs}

    @cached_property
    def platform(self) -> str:
        """The platform of this machine; not asked for while modules are imported, if possible."""
        return self._find_platform()

    @property
    def lack(self) -> str | None:
        """Why no call at all can run, or None."""
        if self.configs or self.miss == "default":
            return None
        return (
            f"No configs available for kernel '{self.op_name}' on platform '{self.platform}'; tune "
            "some, or let miss be 'default'"
        )

    def options(
        self, axes: Sequence[Scalar], args: Sequence[Any] | None = None
    ) -> Iterator[Chosen]:
        """Yield what a call may run with, best first.

        Raises ConfigError where the picker takes what is not tuned, or where a miss is an error.
        """
        key = None if args is None else self.picker.pick(args)
        for found in dict.fromkeys((key, TunedKey.default())):
            if found in self._chosen:
                yield self._chosen[found]
        if self.miss == "default":
            yield Chosen(
                config_id=HELION_DEFAULT,
                config=None,
                outcome="default",
                mode="default",
                reason="nothing is tuned; Helion's own default",
            )
        elif key is None:
            raise ConfigError(none_picked(self.op_name, self.configs))

    def _tuned(self, key: TunedKey) -> Chosen:
        return Chosen(
            config_id=store.config_id(dict(self.configs[key])),
            config=self.configs[key],
            outcome="exact" if key else "default",
            mode="tuned",
            platform=self.platform,
            key=key,
            reason="the picker's case" if key else "the case {}",
        )


def none_picked(op_name: str, keys: Collection[TunedKey]) -> str:
    """Say that a picker took no key, and that there is no default config."""
    return (
        f"Config picker returned None for kernel '{op_name}', and none of the configs is the "
        f"default one; there are {', '.join(map(str, keys)) or 'none'}"
    )


def platform_configs(
    op_name: str, platform: str, configs_dir: ConfigsDir, tunables: Tunables = tuple
) -> dict[TunedKey, Config]:
    """Read the configs of an op on a platform, in our format or vLLM's; nothing without a file.

    Raises PackError with every problem of the file.
    """
    path = Path(configs_dir or ".", op_name, f"{platform}.json")
    if configs_dir is None or not path.exists():
        return {}
    text, document, repeated = "", None, False
    with contextlib.suppress(OSError, ValueError, RecursionError):  # the reader says what is wrong
        text = path.read_text(encoding="utf-8")
        document, repeated = parse_json(text)
    if isinstance(document, list):
        found, wrong = _of_vllm(document, tunables)
        if wrong or repeated:
            raise PackError(problems=tuple(_told(wrong, text, str(path))))
        return found
    file = store.read(path, str(path), op_name, platform, _axes_of(document), {}, tunables)
    return {TunedKey.of(case.key): file.configs[case.config] for case in file.cases}


def _axes_of(document: Any) -> tuple[str, ...]:
    """The axes that the first case of a config file names; without a manifest, all must name them.

    Empty for a document that is none, whose problems are the reader's.
    """
    try:
        return tuple(next(case["key"] for case in document["cases"] if case["key"]))
    except (LookupError, TypeError, AttributeError, StopIteration):
        return ()


_Wrong = list[tuple[JsonPath, str, str]]


def _of_vllm(entries: list[Any], tunables: Tunables) -> tuple[dict[TunedKey, Config], _Wrong]:
    """Return the configs of entries in vLLM's format, and what is wrong with which."""
    found: dict[TunedKey, Config] = {}
    wrong: _Wrong = []
    for place, entry in enumerate(entries):
        match entry:
            case {"key": dict(key), "config": config, **rest} if not rest:
                if any(isinstance(value, dict | list) for value in key.values()):
                    wanted = "a key has a number, text, true, false or null for each axis"
                    wrong.append(((place, "key"), "KP821", wanted))
                elif TunedKey.of(key) in found:
                    wrong.append(((place, "key"), "KP825", "the key is there before; keep one"))
                else:
                    found[TunedKey.of(key)] = config
                for at, code, problem in store.config_problems(config, tunables):
                    wrong.append(((place, "config", *at), code, problem))
            case _:
                wanted = "an object with 'key' and 'config' is expected"
                wrong.append(((place,), "KP821", f"{wanted}, not {store.shown_json(entry)}"))
    return found, wrong


def _told(wrong: _Wrong, text: str, shown: str) -> Iterator[Problem]:
    """Yield a problem for all that is wrong with entries, and for names that are given twice."""
    lines, again = json_lines(text)
    twice = [(at, line, f"{quoted(str(at[-1]))} is given twice; keep one") for at, line in again]
    found = [(at, lines.get(at, 0), code, what) for at, code, what in wrong]
    found += [(at, line, "KP821", what) for at, line, what in twice]
    for at, line, code, what in found:
        yield Problem(path=shown, line=line, code=code, message=f"entry {at[0]}: {what}")
