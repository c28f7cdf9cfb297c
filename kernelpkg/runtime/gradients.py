"""Gradients: what PyTorch's autograd calls where the manifest of an op names its backward.

Before: `torch_ops`, which registers it. After: the op that answers the gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import torch
from torch._C import DispatchKey, DispatchKeySet
from torch._library.autograd import Info, make_autograd_impl
from torch._ops import OpOverload

from kernelpkg.errors import CallError
from kernelpkg.manifest.backward import BoundBackward, bind
from kernelpkg.manifest.opschema import OpSchema
from kernelpkg.manifest.spec import Backward
from kernelpkg.runtime.registry import get_kernel_by_name

if TYPE_CHECKING:
    from kernelpkg.runtime.register import HelionKernelWrapper

AUTOGRAD: Final = "Autograd"
"""The dispatch key of what `implementation` returns."""


class Gradient:
    """The backward of one op: what a call keeps for it, and what is done with that.

    The op that answers may be loaded later, or not at all, so it is looked up where a gradient is
    wanted.
    """

    def __init__(self, op: str, schema: OpSchema, backward: Backward) -> None:
        self._op = op
        self._schema = schema
        self._backward = backward
        self._answers = f"{op.partition('::')[0]}::{backward.op}"
        self._bound: tuple[HelionKernelWrapper, BoundBackward] | None = None

    @classmethod
    def of(cls, op: str, schema: OpSchema, backward: Backward | None) -> Gradient | None:
        """Return that of an op, or None where it has no backward."""
        return None if backward is None else cls(op, schema, backward)

    def check(self, args: Sequence[Any]) -> None:
        """Raise CallError for a call of which a gradient is wanted that cannot be had."""
        wanted = [
            place
            for place, value in enumerate(args)
            if isinstance(value, torch.Tensor) and value.requires_grad
        ]
        first = f"{self._op}: argument '{self._schema.args[wanted[0]].name}' requires grad"
        if torch._C._are_functorch_transforms_active():
            raise CallError(
                f"{first} under a transform of torch.func, which takes no backward of an op; use "
                "torch.autograd, or detach it"
            )
        binding = self._resolve(first)[1]
        for place in wanted:
            if place not in binding.gradients:
                raise CallError(
                    f"{self._op}: argument '{self._schema.args[place].name}' requires grad, and "
                    "[op.backward] of the op gives it none; detach it"
                )

    def keep(self, ctx: Any, inputs: Sequence[Any], output: Any) -> None:
        """Keep what the backward needs of a call."""
        ctx.gradient = self  # an edit may give the op another one before this is asked
        ctx.wrapper, ctx.binding = self._resolve(f"{self._op}: a gradient is wanted")
        results = output if isinstance(output, tuple) else (output,)
        given = {"argument": inputs, "result": results}
        values = [
            given[source.kind][source.place] if source.kind in given else None
            for source in ctx.binding.sources
        ]
        ctx.set_materialize_grads(False)
        used = ctx.binding.differentiable
        ctx.mark_non_differentiable(*(r for place, r in enumerate(results) if place not in used))
        ctx.save_for_backward(*(v if isinstance(v, torch.Tensor) else None for v in values))
        ctx.values = [None if isinstance(value, torch.Tensor) else value for value in values]
        ctx.results = [(result.shape, result.dtype, result.device) for result in results]

    def answer(self, ctx: Any, *grads: Any) -> tuple[Any, ...]:
        """Return the gradients of the arguments of a call; None for one that needs none."""
        binding: BoundBackward = ctx.binding
        needed = ctx.needs_input_grad  # without those that were left out, for they have defaults
        if all(grads[place] is None for place in binding.differentiable):
            return (None,) * len(needed)
        wrapper = self._resolve(f"{self._op}: a gradient is wanted")[0]
        if wrapper.schema != ctx.wrapper.schema:
            raise CallError(
                f"{self._op}: '{self._answers}' has another schema than when the op was called; "
                "call the op again"
            )
        args = self._args(ctx, wrapper, grads)
        # The op that answers may have a backward of its own; without one it is taken as it is.
        again = wrapper.backward is not None and torch.is_grad_enabled()
        with torch.set_grad_enabled(again):
            result = wrapper.op(*args)
        results = result if isinstance(result, tuple | list) else (result,)
        schema = wrapper.schema
        outputs = [*(args[schema.arg_names.index(name)] for name in schema.written), *results]
        found = [outputs[place] for place in binding.gradients.values()]
        sources = [value for value in (*grads, *ctx.saved_tensors) if value is not None]
        if not again and torch.is_grad_enabled() and any(t.requires_grad for t in sources):
            line = (
                f"{self._op}: its gradient has no gradient, for '{self._answers}' has no backward; "
                "do not differentiate it again"
            )
            found = list(_Once.apply(line, len(found), *found, *sources))  # type: ignore[no-untyped-call]  # of PyTorch
        by_place = dict(zip(binding.gradients, found, strict=True))
        return tuple(by_place.get(at) if need else None for at, need in enumerate(needed))

    def _args(self, ctx: Any, wrapper: HelionKernelWrapper, grads: Sequence[Any]) -> list[Any]:
        """Return the arguments of the backward; what it writes is a copy."""
        args: list[Any] = []
        known = zip(wrapper.schema.args, ctx.binding.sources, ctx.saved_tensors, strict=True)
        for place, (arg, source, saved) in enumerate(known):
            value = ctx.values[place] if saved is None else saved
            if source.kind == "default":
                value = arg.default
            elif source.kind == "gradient":
                value = grads[source.place]
                shape, dtype, device = ctx.results[source.place]
                if value is None:  # nobody used this result
                    value = torch.zeros(shape, dtype=dtype, device=device)
                value = value.contiguous()
            args.append(value.clone() if arg.mutated and value is not None else value)
        return args

    def _resolve(self, first: str) -> tuple[HelionKernelWrapper, BoundBackward]:
        """Return the kernel that answers, and how it is called, or raise CallError."""
        wrapper = get_kernel_by_name(self._answers)
        if wrapper is None:
            raise CallError(
                f"{first}, and '{self._answers}', which answers it, is not loaded or switched off; "
                "load it, or call the op under torch.no_grad()"
            )
        if self._bound is None or self._bound[0] is not wrapper:
            binding, problems = bind(self._schema, self._backward, wrapper.schema)
            if problems:
                raise CallError(f"{first}, and its backward does not fit: {problems[0][1]}")
            self._bound = (wrapper, binding)
        return self._bound


class _Once(torch.autograd.Function):
    """Hands gradients through that cannot be differentiated again, and says so where they are."""

    @staticmethod
    def forward(ctx: Any, line: str, count: int, *tensors: torch.Tensor) -> Any:
        """Return the first `count` tensors; the others are what they were made of."""
        ctx.line = line
        return tuple(tensor.view_as(tensor) for tensor in tensors[:count])

    @staticmethod
    def backward(ctx: Any, *_: Any) -> Any:
        raise CallError(ctx.line)


def implementation(
    op: OpOverload, functions: Mapping[str, Any], plain: Callable[..., Any]
) -> Callable[..., Any]:
    """Return what autograd calls for an op whose `Gradient` is `functions["gradient"]`.

    A call of plain tensors that wants no gradient goes to `plain`, the op's own implementation,
    straight away: PyTorch's way there costs 5 to 7 us, this one 0.6 to 0.9 (CPython 3.11, torch
    2.13, two busy cores, 2026-11-30). That there are neither modes nor subclasses in between, the
    dispatch keys say.
    """

    def keep(ctx: Any, inputs: Sequence[Any], output: Any) -> None:
        functions["gradient"].keep(ctx, inputs, output)

    def answer(ctx: Any, *grads: Any) -> Any:
        return ctx.gradient.answer(ctx, *grads)

    whole = make_autograd_impl(op, Info(answer, keep))
    direct = {_plain_keys(device) for device in ("CPU", "CUDA")}

    def called(keys: DispatchKeySet, *args: Any) -> Any:
        if torch.is_grad_enabled() and any(getattr(arg, "requires_grad", False) for arg in args):
            functions["gradient"].check(args)
        elif keys.raw_repr() in direct:
            return plain(*args)
        return whole(keys, *args)

    return called


def _plain_keys(device: str) -> int:
    """Return what the dispatch keys are of a call with plain tensors of a device, and no modes."""
    names = (device, f"Autograd{device}")
    own, autograd = (DispatchKeySet(getattr(DispatchKey, name)) for name in names)
    found: int = (own | autograd).raw_repr()
    return found
