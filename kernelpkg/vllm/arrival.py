"""The arrival of a module: something that is done as soon as the module was imported."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any


class Arrival:
    """Calls a function after a module of some names was imported, and changes nothing else.

    A finder at the head of `sys.meta_path` lets the others find such a module, and has its own
    loader tell when the module was executed. `then` must not raise: it runs within the import.
    """

    def __init__(self, then: Callable[[], None]) -> None:
        self.names: frozenset[str] = frozenset()
        self.arrived: set[str] = set()
        self._then = then

    def watch(self, names: Iterable[str]) -> None:
        """Wait for these names from now on, instead of those before."""
        self.names = frozenset(names)
        if self not in sys.meta_path:
            sys.meta_path = [self, *sys.meta_path]

    def stop(self) -> None:
        """End; harmless where it has not begun.

        The list is another one then, for a thread that goes through the old one must not lose its
        place.
        """
        if self in sys.meta_path:
            sys.meta_path = [finder for finder in sys.meta_path if finder is not self]

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return what the other finders find, for a name that is waited for; else None."""
        if name not in self.names:
            return None
        for finder in tuple(sys.meta_path):
            find = None if finder is self else getattr(finder, "find_spec", None)
            spec: ModuleSpec | None = None if find is None else find(name, path, target)
            if spec is not None:
                self._follow(spec.loader)
                return spec
        return None

    def _follow(self, loader: Any) -> None:
        """Let the loader itself, so that it stays the module's, call back when it has executed."""
        if isinstance(loader, type) or not hasattr(loader, "exec_module"):
            return  # of no module that is an extension or a file
        execute = loader.exec_module

        def exec_module(module: ModuleType) -> None:
            execute(module)
            if module.__name__ in self.names:
                with suppress(AttributeError):
                    del loader.exec_module
                self.arrived.add(module.__name__)
                self._then()

        with suppress(AttributeError):  # one that takes no attributes is left alone
            loader.exec_module = exec_module
