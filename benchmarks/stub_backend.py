"""A backend whose every launch is a given function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from kernelpkg.launch import native


class StubBackend:
    """Stands for Helion where only what is around it is timed."""

    records_gradients = staticmethod(torch.is_grad_enabled)
    has_tangent = staticmethod(native.has_tangent)

    def __init__(self, launch: Callable[..., Any], *, interprets: bool = False) -> None:
        self.interpret = launch
        self.interprets = lambda _: interprets

    def compile(self, *_: Any) -> Callable[..., Any]:
        """Return the function."""
        return self.interpret

    def ready(self, *_: Any, **__: Any) -> Callable[..., Any]:
        """Return the function."""
        return self.interpret

    def is_compiled(self, _: Any) -> bool:
        """Say that nothing is left to compile."""
        return True

    def empty(self, _: Any) -> None:
        """Say that no output is empty."""

    def unfit(self) -> tuple[type[Exception], ...]:
        """Name no errors."""
        return ()
