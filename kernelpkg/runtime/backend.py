"""What runs the calls of an op: Helion's compiler on a GPU, its interpreter elsewhere.

Before: `register`, which makes one for each op. After: `dispatch`, which asks it at first calls.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from kernelpkg.compile import helion
from kernelpkg.configs.selection import Chosen
from kernelpkg.manifest.opschema import OpSchema
from kernelpkg.runtime.dispatch import Launch
from kernelpkg.runtime.torch_ops import asked_to_interpret

Select = Callable[[Sequence[Any]], Chosen]
"""Returns what a call runs with; raises ConfigError where nothing may run."""


class HelionBackend:
    """Runs the calls of one op with Helion; nothing is compiled before the first call.

    `fake` is the op's fake implementation, which makes results without their values; `select`
    names the config of a call that comes from Helion itself.
    """

    def __init__(
        self,
        *,
        op_name: str,
        function: Callable[..., Any],
        settings: Mapping[str, Any],
        schema: OpSchema,
        fake: Callable[..., Any],
        select: Select,
    ) -> None:
        self.op_name = op_name
        self.function = function
        self.settings = dict(settings)
        self._schema = schema
        self._fake = fake
        self._select = select
        self._configured: helion.ConfiguredHelionKernel | None = None

    def configured(self) -> helion.ConfiguredHelionKernel:
        """Return the kernel as Helion has it, with both hooks from one picker."""
        if self._configured is None:
            self._configured = helion.ConfiguredHelionKernel(
                op_name=self.op_name,
                raw_kernel_func=self.function,
                select=lambda args: _selection(self._select(args)),
                settings=self.settings,
            )
        return self._configured

    def forget(self) -> None:
        """Drop what was compiled."""
        self._configured = None

    def compile(self, args: Sequence[Any], chosen: Chosen) -> Launch:
        """Compile a call with its config; returns what launches it on the GPU of its tensors."""
        return _on_device_of(args, self.configured().launcher(args, _selection(chosen)))

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

    def unfit(self) -> tuple[type[Exception], ...]:
        """The errors by which a launch says that its config needs more than this GPU has."""
        return helion.out_of_resources()


def _selection(chosen: Chosen) -> helion.Selection:
    return helion.Selection(config_id=chosen.config_id, config=chosen.config)


def _on_device_of(args: Sequence[Any], launch: Launch) -> Launch:
    """Let a launcher run on the GPU of its tensors; Triton launches on the current one."""
    if torch.cuda.device_count() < 2:
        return launch
    index = next(arg for arg in args if isinstance(arg, torch.Tensor)).get_device()

    def launch_there(*args: Any) -> Any:
        if torch.cuda.current_device() == index:
            return launch(*args)
        with torch.cuda.device(index):
            return launch(*args)

    return launch_there
