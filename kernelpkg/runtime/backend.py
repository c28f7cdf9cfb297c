"""What runs the calls of an op: code of a build, Helion's compiler, or its interpreter on a CPU.

Before: `register`, which makes one for each op. After: `dispatch`, which asks it at first calls.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch

from kernelpkg.configs.selection import Chosen
from kernelpkg.errors import ConfigError
from kernelpkg.launch import driver, native
from kernelpkg.launch.code import count_reason
from kernelpkg.manifest.opschema import OpSchema
from kernelpkg.runtime.dispatch import Launch, Plan
from kernelpkg.runtime.prebuilt import BuiltCode, NotBuilt
from kernelpkg.runtime.torch_ops import asked_to_interpret

if TYPE_CHECKING:  # Helion takes seconds to import, and code of a build does without it
    from kernelpkg.compile import helion
    from kernelpkg.compile.code import CompiledCode

Select = Callable[[Sequence[Any]], Chosen]
"""Returns what a call runs with; raises ConfigError where nothing may run."""


class HelionBackend:
    """Runs the calls of one op; nothing is compiled before the first call.

    `function` returns the Helion function and `settings` its settings, when something has to be
    compiled or interpreted. `fake` is the op's fake implementation, which makes results without
    their values; `select` names the config of a call that comes from Helion itself, and `tuned` has
    all of them. What `built` lacks is compiled, or refused where only `prebuilt` code may run.
    """

    def __init__(
        self,
        *,
        op_name: str,
        function: Callable[[], Callable[..., Any]],
        settings: Callable[[], Mapping[str, Any]],
        schema: OpSchema,
        fake: Callable[..., Any],
        select: Select,
        tuned: Plan,
        built: BuiltCode | None = None,
        prebuilt: bool = False,
    ) -> None:
        self.op_name = op_name
        self.built = built
        self.fallbacks: dict[str, int] = {}
        self._make_function = function
        self._make_settings = settings
        self._schema = schema
        self._fake = fake
        self._select = select
        self._tuned = tuned
        self.prebuilt = prebuilt
        self._configured: helion.ConfiguredHelionKernel | None = None
        self._code: CompiledCode | None = None

    @cached_property
    def function(self) -> Callable[..., Any]:
        """The Helion function."""
        return self._make_function()

    @cached_property
    def settings(self) -> dict[str, Any]:
        """Its settings, as Helion takes them."""
        return dict(self._make_settings())

    def configured(self) -> helion.ConfiguredHelionKernel:
        """Return the kernel as Helion has it, with both hooks from one picker."""
        if self._configured is None:
            from kernelpkg.compile import helion

            self._configured = helion.ConfiguredHelionKernel(
                op_name=self.op_name,
                raw_kernel_func=self.function,
                select=lambda args: _selection(self._select(args)),
                settings=self.settings,
                tuned=self._tuned,
            )
        return self._configured

    def code(self) -> CompiledCode:
        """Return what is compiled in this process."""
        if self._code is None:
            from kernelpkg.compile.code import CompiledCode

            self._code = CompiledCode(self.configured())
        return self._code

    def forget(self) -> None:
        """Drop what was compiled, and what was counted."""
        self._configured = self._code = None
        self.fallbacks.clear()

    def compile(self, args: Sequence[Any], chosen: Chosen) -> Launch:
        """Return what launches a call with its config: code of the build, or compiled here.

        Raises ConfigError where Helion refuses the config, or where nothing may be compiled.
        """
        if self.built is not None:
            try:
                return self.built.launcher(args, chosen.config_id)
            except NotBuilt as error:
                count_reason(self.fallbacks, str(error))
                if self.prebuilt:
                    message = f"op '{self.op_name}': {error}, and only prebuilt code may run"
                    raise ConfigError(f"{message}; build it for such calls") from None
        return self.code().launcher(args, _selection(chosen))

    def begin(self, args: Sequence[Any], chosen: Chosen) -> None:
        """Begin to compile a call, within `compile.code.compiling_in_threads`.

        Raises ConfigError where Helion refuses the config.
        """
        self.code().begin(args, _selection(chosen))

    def ready(
        self,
        args: Sequence[Any],
        chosen: Chosen,
        device: torch.device | None = None,
        *,
        exact: bool,
    ) -> Launch | None:
        """Return what launches a call if that needs no compilation, else None.

        `args` may be stand-ins without storage of tensors on a `device`. Of what was compiled in
        this process, `exact` takes only what would be compiled for this call.
        """
        if self.built is not None:
            with suppress(NotBuilt):  # counted where the call is answered in another way
                return self.built.launcher(args, chosen.config_id, device)
        if self._code is None:
            return None
        return self._code.known(args, _selection(chosen), device, exact=exact)

    def is_compiled(self, launch: Launch) -> bool:
        """Whether a launcher has nothing left to compile: Triton's own does so when it launches."""
        return native.choose().is_recorded(launch)

    def compiled_count(self) -> int:
        """How many kernels were compiled in this process."""
        return 0 if self._code is None else self._code.code_count()

    def long_ways(self) -> dict[str, int]:
        """Why calls were not launched from the build, or not as recorded, and how many."""
        compiled = {} if self._code is None else self._code.unrecorded
        return {**self.fallbacks, **compiled}

    def interpret(self, *args: Any) -> Any:
        """Run a call in Helion's interpreter, on the device of its tensors."""
        return self.configured().interpret(*args)

    def interprets(self, args: Sequence[Any]) -> bool:
        """Whether a call is interpreted: it is on a CPU, or HELION_INTERPRET asks for it."""
        on_cpu = any(isinstance(arg, torch.Tensor) and arg.device.type == "cpu" for arg in args)
        return on_cpu or asked_to_interpret()

    def empty(self, args: Sequence[Any]) -> Launch | None:
        """Return what answers a call whose outputs all have no elements, or None.

        Helion refuses empty outputs, compiled and interpreted.
        """
        written = [args[place] for place, arg in enumerate(self._schema.args) if arg.mutated]
        if any(output is not None and output.numel() for output in written):
            return None
        if self._schema.returns == 0:
            return lambda *_: None
        if all(arg.numel() for arg in args if isinstance(arg, torch.Tensor)):
            return None
        result = self._fake(*args)
        results = result if isinstance(result, tuple | list) else (result,)
        return self._fake if all(output.numel() == 0 for output in results) else None

    # PyTorch's own function: every call asks it, and a method around it would cost 50 ns.
    records_gradients = staticmethod(torch.is_grad_enabled)
    has_tangent = staticmethod(native.has_tangent)

    def unfit(self) -> tuple[type[Exception], ...]:
        """The errors by which a launch says that its config needs more than this GPU has."""
        if self._configured is None:
            return (driver.OutOfResources,)
        from kernelpkg.compile import helion

        return (driver.OutOfResources, *helion.out_of_resources())


def _selection(chosen: Chosen) -> helion.Selection:
    from kernelpkg.compile import helion

    return helion.Selection(config_id=chosen.config_id, config=chosen.config)
