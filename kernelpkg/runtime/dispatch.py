"""From a call to a launch: one look-up by signature, and what is done when it finds nothing.

What runs a call is passed in as a `Backend`, so that nothing here knows Helion.

Before: `runtime/register`. After: the launch, by `launch/` through a Backend.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, Protocol

from kernelpkg.configs.selection import Chosen
from kernelpkg.configs.tuned_key import TunedKey
from kernelpkg.errors import CallError, ConfigError, KernelpkgError
from kernelpkg.launch import native
from kernelpkg.locks import make_lock
from kernelpkg.manifest.helion_config import Config
from kernelpkg.manifest.opschema import NO_DEFAULT, OpArg, OpSchema
from kernelpkg.manifest.spec import Scalar
from kernelpkg.runtime.memory import check_results, check_written

Launch = Callable[..., Any]
"""Takes the arguments of the op and returns its result."""


class Acceptance(Protocol):
    """Holds calls against what a kernel takes; `guards.CallCheck` does so for a manifest."""

    axis_names: tuple[str, ...]
    unread: frozenset[int]
    """Places of arguments whose values neither this nor a picker looks at."""

    def axes_of(self, args: Sequence[Any]) -> tuple[Scalar, ...]:
        """Return the axis values of a call, or raise CallError."""


class Plan(Protocol):
    """Names the configs of a call; `selection.ConfigSelection` does so for a manifest."""

    @property
    def platform(self) -> str:
        """The platform that calls run on."""

    @property
    def configs(self) -> Mapping[TunedKey, Config]:
        """The configs that are tuned for it, by their keys."""

    def options(
        self, axes: Sequence[Scalar], args: Sequence[Any] | None = None
    ) -> Iterator[Chosen]:
        """Yield what a call may run with, best first."""


class Backend(Protocol):
    """Runs the calls of one op; `backend.HelionBackend` does so with Helion.

    Where it is `prebuilt`, it compiles nothing.
    """

    prebuilt: bool

    def compile(self, args: Sequence[Any], chosen: Chosen) -> Launch:
        """Return the launcher of a call with a config."""

    def begin(self, args: Sequence[Any], chosen: Chosen) -> None:
        """Begin to compile a call with a config, in other threads where there are some for it."""

    def ready(
        self, args: Sequence[Any], chosen: Chosen, device: Any = None, *, exact: bool
    ) -> Launch | None:
        """Return the launcher of a call with a config if nothing has to be compiled, else None.

        `args` may be stand-ins without storage of tensors on a `device`. `exact` is for code that
        would be compiled for just this call; other code that is right for it may be slower.
        """

    def is_compiled(self, launch: Launch) -> bool:
        """Whether a launcher that `compile` returned has nothing left to compile."""

    def compiled_count(self) -> int:
        """How many kernels were compiled in this process."""

    def interpret(self, *args: Any) -> Any:
        """Run a call where nothing is compiled."""

    def interprets(self, args: Sequence[Any]) -> bool:
        """Whether a call is run without being compiled: on a CPU, or when asked for."""

    def empty(self, args: Sequence[Any]) -> Launch | None:
        """Return what answers a call whose outputs have no elements; None for one that has."""

    def records_gradients(self) -> bool:
        """Whether gradients are recorded in this thread."""

    def has_tangent(self, tensor: Any) -> bool:
        """Whether a forward gradient is wanted of a tensor."""

    def unfit(self) -> tuple[type[Exception], ...]:
        """The errors by which a launch says that its config needs more than this GPU has."""


class NotReady(KernelpkgError):
    """A call that cannot be answered without compiling something."""


class Dispatcher:
    """Answers the calls of one op.

    A signature is all that a launch depends on: per tensor its shape, strides, dtype, device and
    the alignment of its pointer, and every scalar, but a float that the kernel alone looks at. A
    call whose signature was seen costs one look-up and the launch; a new one is held against the
    manifest, its config is picked, and its launcher is made, under a lock. `acceptance` is asked
    for at the first call.
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
        self.backend = backend
        self._lock = make_lock()
        self._any: frozenset[int] | None = None
        self.calls = make_calls(
            schema,
            self.resolve,
            grad_enabled=backend.records_gradients,
            check_grad=self.check_grad,
        )

    def implementation(self) -> Launch:
        """Return the function of the op's arguments that is registered with PyTorch."""
        call: Launch = self.calls.call
        return call

    def resolve(self, args: Sequence[Any]) -> Any:
        """Answer a call whose signature is new, and remember its launcher.

        Raises CallError where the call is not accepted, and ConfigError where no config may run.
        """
        return self.first_call(args)[1]

    def first_call(self, args: Sequence[Any], *, compiling: bool = True) -> tuple[Launch, Any]:
        """Do as `resolve` does, and return the launcher too, for who keeps it by the signature.

        Raises NotReady where something would have to be compiled, and nothing may be.
        """
        # First calls of one signature come from several threads at once under vLLM; without the
        # lock each would compile, and Helion's caches are not made for that.
        with self._lock:
            known: Launch | None = self.calls.get(args)
            if known is None:
                return self._first_call(args, compiling=compiling)
        return known, known(*args)  # another thread was here first

    def _first_call(self, args: Sequence[Any], *, compiling: bool) -> tuple[Launch, Any]:
        axes = self._acceptance().axes_of(args)
        check_written(self.op, self.schema, args)
        launch = self.backend.empty(args)
        if launch is None and self.backend.interprets(args):
            launch = self.backend.interpret
        prepared = launch is None
        if launch is not None:
            result = launch(*args)
        else:
            launch, result = self._launch(axes, args, run=True, compiling=compiling)
        check_results(self.op, self.schema, args, result)
        self._remember(args, launch, prepared=prepared)
        return launch, result

    def _remember(self, args: Sequence[Any], launch: Launch, *, prepared: bool = True) -> None:
        """Keep a launcher by the signature of its calls.

        One that was `prepared` for a call may depend on the values of floats, except of those that
        it calls `any`. The first that depends on one makes its value a part of all signatures.
        """
        before = self._any
        if before is None:
            floats = (place for place, arg in enumerate(self.schema.args) if arg.type == "float")
            before = self._acceptance().unread.intersection(floats)
        free = getattr(launch, "any", ()) if prepared else before
        found = frozenset(place for place in before if place in free or args[place] is None)
        if found != (self._any or frozenset()):
            self.calls.accept_any(tuple(sorted(found)))
        self._any = found
        self.calls.put(args, launch)

    def prepare(self, args: Sequence[Any], *, compiling: bool = True) -> None:
        """Make the launcher of a call without launching it.

        Raises CallError where the call is not accepted, ConfigError where no config may run, and
        NotReady where the launcher compiles when it first launches, or something would have to be
        compiled, and nothing may be.
        """
        with self._lock:
            if self.calls.get(args) is not None or self.backend.interprets(args):
                return
            axes = self._acceptance().axes_of(args)
            if self.backend.empty(args) is not None:
                return
            launch = self._launch(axes, args, run=False, compiling=compiling)[0]
            # What is known here may be launched while a CUDA graph is captured.
            if not self.backend.is_compiled(launch):
                raise NotReady(f"{self.op}: code for this call is compiled when it is first made")
            self._remember(args, launch)

    def begin(self, args: Sequence[Any], chosen: Chosen | None = None) -> None:
        """Begin to compile a call, with the config that it gets or another one.

        What goes wrong with it is raised where it is compiled; some of that is raised here too.
        """
        with self._lock:
            if chosen is None:
                axes = self._acceptance().axes_of(args)
                chosen = next(self.plan.options(axes, args), None)
            if chosen is not None:
                self.backend.begin(args, chosen)

    def is_ready(self, args: Sequence[Any], chosen: Chosen, device: Any) -> bool:
        """Whether the code of calls like `args`, which have no storage, is there with a config."""
        with self._lock:
            return self.backend.ready(args, chosen, device, exact=True) is not None

    def compile(self, args: Sequence[Any], chosen: Chosen) -> None:
        """Have the code of a call with a config."""
        with self._lock:
            self.backend.compile(args, chosen)

    def check_grad(self, args: Sequence[Any]) -> None:
        """Raise CallError for a tensor that a gradient is wanted of, forwards or backwards.

        Trailing arguments with defaults may be left out, as a fake implementation gets them.
        """
        recorded = self.backend.records_gradients()
        for arg, value in zip(self.schema.args, args, strict=False):
            if not arg.is_tensor or value is None:
                continue
            if recorded and value.requires_grad:
                raise CallError(
                    f"{self.op}: argument '{arg.name}' requires grad, and the op has no backward; "
                    "detach it, or call the op under torch.no_grad()"
                )
            if self.backend.has_tangent(value):
                raise CallError(
                    f"{self.op}: argument '{arg.name}' has a tangent, and the op has no forward "
                    "derivative; detach it"
                )

    def _launch(
        self, axes: Sequence[Scalar], args: Sequence[Any], *, run: bool, compiling: bool
    ) -> tuple[Launch, Any]:
        """Return the launcher of the best config that this GPU can run, and the result if `run`.

        One tuned for this very call must run; any other may need more than this GPU has, and then
        the next one is tried.
        """
        failed = ""
        for chosen in self.plan.options(axes, args):
            try:
                # What is made ready may be compiled next; a call takes what fits.
                known = None if compiling else self.backend.ready(args, chosen, exact=not run)
                if known is None and not compiling:
                    raise NotReady(f"{self.op}: code for this call was not made ahead")
                launch = known or self.backend.compile(args, chosen)
                return launch, launch(*args) if run else None
            except self.backend.unfit() as error:
                if chosen.outcome == "exact" and chosen.mode == "tuned":
                    raise  # falling through would hide a broken config
                failed = f" ({chosen.reason}: {' '.join(str(error).split())})"
        told = ", ".join(
            f"{name} = {value}"
            for name, value in zip(self._acceptance().axis_names, axes, strict=True)
        )
        raise ConfigError(
            f"{self.op}: no config for this call on {self.plan.platform} ({told}){failed}; "
            "tune one, or let [miss] action be 'default'"
        )


def make_calls(
    schema: OpSchema,
    resolve: Callable[[tuple[Any, ...]], Any],
    *,
    args: Sequence[OpArg] | None = None,
    **options: Any,
) -> Any:
    """Return the look-up of calls of a schema, in C or in Python: `launch.calls.Calls`.

    `args` are those of the schema unless given: a native op may have other defaults.
    """
    found = schema.args if args is None else args
    defaults = tuple(arg.default for arg in found if arg.default is not NO_DEFAULT)
    kinds = "".join(map(_kind, found))
    return native.choose().make_calls(kinds, resolve, defaults=defaults, **options)


_KINDS: Final[Mapping[str, str]] = {
    "Tensor": "t", "int": "i", "SymInt": "i", "float": "f", "bool": "b", "str": "s", "int[]": "l",
}  # fmt: skip


def _kind(arg: OpArg) -> str:
    """The letter that `Calls` knows an argument by."""
    letter = _KINDS.get(arg.type, "o")
    return letter.upper() if arg.optional and letter != "o" else letter
