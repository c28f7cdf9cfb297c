"""What a kernel without a manifest takes, and its configs.

Before: `register`, whose `register_kernel` makes both. After: `dispatch`, which asks them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from kernelpkg.configs import store
from kernelpkg.configs.selection import HELION_DEFAULT, Chosen
from kernelpkg.errors import ConfigError
from kernelpkg.manifest.spec import CaseKey, Scalar
from kernelpkg.runtime.torch_ops import detect

ConfigPicker = Callable[[tuple[Any, ...], Sequence[CaseKey]], CaseKey | None]
"""Takes the arguments and the tuned case keys; returns one of them, or None for the default."""


class AnyCall:
    """Accepts every call; a kernel without a manifest has no axes."""

    axis_names: tuple[str, ...] = ()

    def axes_of(self, args: Sequence[Any]) -> tuple[Scalar, ...]:
        return ()


class PickedPlan:
    """The configs of a kernel without a manifest: its picker's, `{}`, and Helion's default."""

    def __init__(self, op_name: str, picker: ConfigPicker | None, directory: Path | None) -> None:
        self.op_name = op_name
        self.picker = picker
        self.tuned: dict[tuple[tuple[str, Scalar], ...], Chosen] = {}
        if directory is not None:
            self._read(directory / op_name / f"{self.platform}.json")
        self.keys = [dict(key) for key in self.tuned if key]

    @cached_property
    def platform(self) -> str:
        """The platform of this machine; not asked for while modules are imported, if possible."""
        return detect().platform.name

    def _read(self, path: Path) -> None:
        if not path.exists():
            return
        axes = _axes_of(path)
        file = store.read(path, str(path), self.op_name, self.platform, axes, {})
        for case in file.cases:
            config = file.configs[case.config]
            self.tuned[_frozen(case.key)] = Chosen(
                config_id=json.dumps(config, sort_keys=True),
                config=config,
                outcome="exact" if case.key else "default",
                mode="tuned",
                platform=self.platform,
                key=case.key,
                reason="the picker's case" if case.key else "the case {}",
            )

    def options(
        self, axes: Sequence[Scalar], args: Sequence[Any] | None = None
    ) -> Iterator[Chosen]:
        if self.picker is not None and self.keys and args is not None:
            key = self.picker(tuple(args), self.keys)
            if key is not None:
                if _frozen(key) not in self.tuned:
                    raise ConfigError(
                        f"the config picker of '{self.op_name}' returned {dict(key)}, which is "
                        "none of the tuned keys"
                    )
                yield self.tuned[_frozen(key)]
        if () in self.tuned:
            yield self.tuned[()]
        yield Chosen(
            config_id=HELION_DEFAULT,
            config=None,
            outcome="default",
            mode="default",
            reason="nothing is tuned; Helion's own default",
        )


def _axes_of(path: Path) -> tuple[str, ...]:
    """The axes that the first case of a config file names; without a manifest, all must name them.

    Empty for a file that is not one, whose problems are the reader's.
    """
    try:
        cases = json.loads(path.read_text(encoding="utf-8"))["cases"]
        return tuple(next(case["key"] for case in cases if case["key"]))
    except (OSError, ValueError, LookupError, TypeError, AttributeError, StopIteration):
        return ()


def _frozen(key: CaseKey) -> tuple[tuple[str, Scalar], ...]:
    return tuple(sorted(key.items()))
