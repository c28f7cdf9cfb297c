"""A job in its worker: the function by its name, the call, and what went wrong, in words."""

from __future__ import annotations

import importlib
import json
import time
import traceback
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal

from attrs import frozen

Kind = Literal["ready", "done", "failed", "poisoned", "gone", "refused", "died", "stuck"]

_LONG: Final = 300
"""How much of an error a reason holds."""

_GONE: Final = (
    "no cuda-capable device",
    "no rocm-capable device",
    "no hip gpus are available",
    "no cuda gpus are available",
    "found no nvidia driver",
    "busy or unavailable",
    "cuda driver initialization failed",
    "cuda unknown error",
    "device lost",
    "gpu is lost",
    "fallen off the bus",
    "uncorrectable ecc",
    "uncorrectable nvlink",
    "hardware stack error",
    "system not yet initialized",
    "cuda_error_no_device",
    "cuda_error_device_unavailable",
    "hiperrornodevice",
)
"""What CUDA, HIP and PyTorch say of a GPU that is not there any more, in lower case."""

_POISONED: Final = (
    "cuda error",
    "hip error",
    "triton error [cuda]",
    "triton error [hip]",
    "illegal memory access",
    "illegal instruction",
    "misaligned address",
    "device-side assert",
    "unspecified launch failure",
    "launch timed out",
    "memory access fault",
)
"""What they say once the context may be broken: each later call in the process fails as well."""

_HARMLESS: Final = ("out of memory", "out of resource")
"""Errors of the same form that leave the context whole."""


@frozen(kw_only=True)
class Message:
    """What a worker says of itself or of the job it got; `seconds` is the time of the job.

    `ready` has the facts of the worker as value, and `done` the result. After `failed` the worker
    goes on; after `poisoned` the job failed, and the process is of no more use; `gone` says that
    the device is; `refused` that the worker cannot start; `died` that its process ended, and
    `stuck` that it does not.
    """

    kind: Kind
    value: Any = None
    text: str = ""
    seconds: float = 0.0

    def dumps(self) -> str:
        """Return the message as one line of JSON; raises TypeError where a value is not JSON."""
        members = {"kind": self.kind, "value": self.value, "text": self.text}
        return json.dumps({**members, "seconds": self.seconds}, separators=(",", ":"))


def loads(line: str) -> Message:
    """Read what `Message.dumps` wrote."""
    return Message(**json.loads(line))


def one_line(text: str) -> str:
    """Return a text on one line, shortened to what a reason can hold."""
    words = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return words if len(words) <= _LONG else f"{words[: _LONG - 1]}…"


class Call:
    """A function that is named "module:function", imported here, and what its module says of here.

    A module may have `facts()`, which returns what sets one device apart from another, such as the
    name of the GPU, as texts; it also finds a device that is broken before a job does.
    """

    def __init__(self, perform: str) -> None:
        module, _, name = perform.partition(":")
        found = importlib.import_module(module)
        self.function: Callable[[Any], Any] = getattr(found, name)
        facts: Callable[[], Mapping[str, str]] = getattr(found, "facts", dict)
        self.ready: Final = Message(kind="ready", value=dict(facts()))

    def answer(self, payload: Any) -> str:
        """Perform one job, and return the message of its end, as JSON; whatever it raises."""
        begin = time.perf_counter()
        try:
            value = self.function(payload)
            seconds = time.perf_counter() - begin
            return Message(kind="done", value=value, seconds=seconds).dumps()
        except BaseException as error:  # an exit or an interrupt of the job is its failure too
            seconds = time.perf_counter() - begin
            return Message(kind=_kind(error), text=_said(error), seconds=seconds).dumps()


def start(perform: str) -> tuple[Call | None, str]:
    """Import what jobs need; returns the message that says it, or why it cannot be."""
    try:
        call = Call(perform)
        return call, call.ready.dumps()
    except BaseException as error:
        return None, Message(kind="refused", text=_said(error)).dumps()


def _said(error: BaseException) -> str:
    return one_line("".join(traceback.format_exception_only(error)))


def _kind(error: BaseException) -> Kind:
    """Tell from an error, and from those behind it, what is left of the process and its device."""
    seen: list[str] = []
    link: BaseException | None = error
    while link is not None and len(seen) < 20:
        seen.append("".join(traceback.format_exception_only(link)).lower())
        link = link.__cause__ or link.__context__
    if any(phrase in text for text in seen for phrase in _GONE):
        return "gone"
    for text in seen:
        harmless = any(phrase in text for phrase in _HARMLESS)
        if not harmless and any(phrase in text for phrase in _POISONED):
            return "poisoned"
    return "failed"
