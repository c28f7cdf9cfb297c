"""From a call to a launch: one look-up by signature, and what is done when it finds nothing.

What runs a call is passed in as a `Backend`, so that nothing here knows Helion.

Before: `runtime/register`. After: the launch, by `compile/helion` through a Backend.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from types import CodeType
from typing import Any, Final, Protocol

from kernelpkg.configs.selection import Chosen
from kernelpkg.errors import CallError, ConfigError
from kernelpkg.manifest.opschema import NO_DEFAULT, OpArg, OpSchema
from kernelpkg.manifest.spec import Scalar

Launch = Callable[..., Any]
"""Takes the arguments of the op and returns its result."""

TABLE_LIMIT: Final = 65_536
"""How many signatures an op remembers before it forgets them all."""


class Acceptance(Protocol):
    """Holds calls against what a kernel takes; `guards.CallCheck` does so for a manifest."""

    axis_names: tuple[str, ...]

    def axes_of(self, args: Sequence[Any]) -> tuple[Scalar, ...]:
        """Return the axis values of a call, or raise CallError."""


class Plan(Protocol):
    """Names the configs of a call; `selection.ConfigSelection` does so for a manifest."""

    @property
    def platform(self) -> str:
        """The platform that calls run on."""

    def options(
        self, axes: Sequence[Scalar], args: Sequence[Any] | None = None
    ) -> Iterator[Chosen]:
        """Yield what a call may run with, best first."""


class Backend(Protocol):
    """Runs the calls of one op; `backend.HelionBackend` does so with Helion."""

    def compile(self, args: Sequence[Any], chosen: Chosen) -> Launch:
        """Return the launcher of a call with a config."""

    def interpret(self, *args: Any) -> Any:
        """Run a call where nothing is compiled."""

    def interprets(self, args: Sequence[Any]) -> bool:
        """Whether a call is run without being compiled: on a CPU, or when asked for."""

    def empty(self, args: Sequence[Any]) -> Launch | None:
        """Return what answers a call whose outputs have no elements; None for one that has."""

    def records_gradients(self) -> bool:
        """Whether gradients are recorded in this thread."""

    def unfit(self) -> tuple[type[Exception], ...]:
        """The errors by which a launch says that its config needs more than this GPU has."""


class Dispatcher:
    """Answers the calls of one op.

    A signature is all that a launch depends on: per tensor its shape, strides, dtype and device,
    and every scalar. A call whose signature was seen costs one look-up and the launch; a new one
    is held against the manifest, its config is picked, and its launcher is made, under a lock.
    `acceptance` is asked for at the first call.
    """

    def __init__(
        self,
        *,
        op: str,
        schema: OpSchema,
        acceptance: Callable[[], Acceptance],
        plan: Plan,
        backend: Backend,
    ) -> None:
        self.op = op
        self.schema = schema
        self._acceptance = acceptance
        self.plan = plan
        self.table: dict[Any, Launch] = {}
        self.backend = backend
        self._lock = threading.RLock()

    def implementation(self) -> Launch:
        """Return the function of the op's arguments that is registered with PyTorch."""
        params, key, grad = [], [], []
        space: dict[str, Any] = {
            "find": self.table.get,
            "resolve": self.resolve,
            "grad_enabled": self.backend.records_gradients,
            "check_grad": self.check_grad,
        }
        for place, arg in enumerate(self.schema.args):
            name = f"a{place}"
            if arg.default is NO_DEFAULT:
                params.append(name)
            else:
                space[f"d{place}"] = arg.default
                params.append(f"{name}=d{place}")
            key.append(key_code(name, arg))
            if arg.is_tensor:
                grad.append(grad_code(name, arg))
        names = ", ".join(f"a{place}" for place in range(len(self.schema.args)))
        code = (
            f"def call({', '.join(params)}):\n"
            f"    if grad_enabled() and ({' or '.join(grad) or 'False'}):\n"
            f"        check_grad(({names},))\n"
            f"    key = ({', '.join(key)},)\n"
            "    launch = find(key)\n"
            "    if launch is None:\n"
            f"        return resolve(key, ({names},))\n"
            f"    return launch({names})\n"
        )
        exec(_compiled(code), space)
        call: Launch = space["call"]
        return call

    def resolve(self, key: Any, args: Sequence[Any]) -> Any:
        """Answer a call whose signature is new, and remember its launcher.

        Raises CallError where the call is not accepted, and ConfigError where no config may run.
        """
        return self.first_call(key, args)[1]

    def first_call(self, key: Any, args: Sequence[Any]) -> tuple[Launch, Any]:
        """Do as `resolve` does, and return the launcher too, for who keeps it by the same key."""
        # First calls of one signature come from several threads at once under vLLM; without the
        # lock each would compile, and Helion's caches are not made for that.
        with self._lock:
            known = self.table.get(key)
            if known is None:
                return self._first_call(key, args)
        return known, known(*args)  # another thread was here first

    def _first_call(self, key: Any, args: Sequence[Any]) -> tuple[Launch, Any]:
        axes = self._acceptance().axes_of(args)
        launch = self.backend.empty(args)
        if launch is None and self.backend.interprets(args):
            launch = self.backend.interpret
        if launch is not None:
            result = launch(*args)
        else:
            launch, result = self._first_launch(axes, args)
        if len(self.table) >= TABLE_LIMIT:
            self.table.clear()
        self.table[key] = launch
        return launch, result

    def check_grad(self, args: Sequence[Any]) -> None:
        """Raise CallError for a tensor that requires grad, where gradients are recorded.

        Trailing arguments with defaults may be left out, as a fake implementation gets them.
        """
        if not self.backend.records_gradients():
            return
        for arg, value in zip(self.schema.args, args, strict=False):
            if arg.is_tensor and value is not None and value.requires_grad:
                raise CallError(
                    f"{self.op}: argument '{arg.name}' requires grad, and the op has no backward; "
                    "detach it, or call the op under torch.no_grad()"
                )

    def _first_launch(self, axes: Sequence[Scalar], args: Sequence[Any]) -> tuple[Launch, Any]:
        """Launch with the best config that this GPU can run.

        One tuned for this very call must run; any other may need more than this GPU has, and then
        the next one is tried.
        """
        failed = ""
        for chosen in self.plan.options(axes, args):
            launch = self.backend.compile(args, chosen)
            if chosen.outcome == "exact" and chosen.mode == "tuned":
                return launch, launch(*args)  # falling through would hide a broken config
            try:
                return launch, launch(*args)
            except self.backend.unfit() as error:
                failed = f" ({chosen.reason}: {' '.join(str(error).split())})"
        told = ", ".join(
            f"{name} = {value}"
            for name, value in zip(self._acceptance().axis_names, axes, strict=True)
        )
        raise ConfigError(
            f"{self.op}: no config for this call on {self.plan.platform} ({told}){failed}; "
            "tune one, or let [miss] action be 'default'"
        )


@lru_cache(maxsize=1024)
def _compiled(code: str) -> CodeType:
    """Compile the code of an implementation, which ops with like arguments share; 0.15 ms each."""
    return compile(code, "<dispatch>", "exec", dont_inherit=True)


def key_code(name: str, arg: OpArg) -> str:
    """Write what a signature holds of an argument; flat, for a tuple costs its making and hash."""
    if not arg.is_tensor:
        return name
    facts = f"{name}.shape, {name}.stride(), {name}.dtype, {name}.get_device()"
    return f"None if {name} is None else ({facts})" if arg.optional else facts


def grad_code(name: str, arg: OpArg) -> str:
    """Write whether a tensor requires grad, which a signature does not hold."""
    given = f"{name} is not None and " if arg.optional else ""
    return f"{given}{name}.requires_grad"
