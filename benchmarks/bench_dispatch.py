"""The host cost of an eager op call whose signature was seen, launch apart, on CPU tensors.

`op` is a call through `torch.ops` to our implementation: one look-up by signature, and a launcher
that does nothing. `floor` is an op of the same schema, registered in the same way, whose Python
implementation does nothing. `implementation` is ours without PyTorch's dispatcher. What a launch
costs comes on top.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from report import finish, options
from stub_backend import StubBackend
from timing import interleave, per_call

from kernelpkg.bench.reference import make_inputs
from kernelpkg.configs.selection import make_selection
from kernelpkg.manifest.cases import smallest_case
from kernelpkg.manifest.guards import CallCheck
from kernelpkg.manifest.spec import KernelSpec
from kernelpkg.packs import find
from kernelpkg.packs.read import kernel_names, read_kernel
from kernelpkg.runtime.dispatch import Dispatcher
from kernelpkg.runtime.torch_ops import RegisteredOp

OURS, FLOOR = "kernelpkg_bench", "kernelpkg_bench_floor"
"""The namespaces of both sides."""


def result_of(spec: KernelSpec, args: tuple[Any, ...]) -> Any:
    """Return what stands for the results of an op: nothing, or an empty tensor for each."""
    made = tuple(torch.empty(0, device=args[0].device) for _ in range(spec.schema.returns))
    return None if not made else made[0] if len(made) == 1 else made


def dispatcher(spec: KernelSpec, launch: Callable[..., Any]) -> Dispatcher:
    """Return the dispatcher of a kernel whose every launch is the given one."""
    acceptance = CallCheck(spec, spec.name)
    return Dispatcher(
        op=spec.name,
        schema=spec.schema,
        acceptance=lambda: acceptance,
        plan=make_selection(spec, "cpu", []),
        backend=StubBackend(launch),
    )


def measure(spec: KernelSpec, *, rounds: int, calls: int) -> dict[str, Any]:
    """Return one row: the microseconds of a call of both sides."""
    args = make_inputs(spec, smallest_case(spec))
    result = result_of(spec, args)

    def nothing(*_: Any) -> Any:
        return result

    implementation = dispatcher(spec, nothing).implementation()
    ops = [
        RegisteredOp(
            namespace=namespace,
            name=spec.name,
            schema=spec.schema.text,
            implementation=called,
            fake=nothing,
        )
        for namespace, called in ((OURS, implementation), (FLOOR, nothing))
    ]
    called = {
        "op": ops[0].call,
        "floor": ops[1].call,
        "implementation": implementation,
        "nothing": nothing,
    }
    times = interleave(
        {
            name: lambda call=call: per_call(lambda: [call(*args) for _ in range(calls)], calls)
            for name, call in called.items()
        },
        rounds=rounds,
    )
    for op in ops:
        op.close()
    least = {name: time.least for name, time in times.items()}
    return {
        "op_name": spec.name,
        "arguments": len(args),
        "tensors": sum(isinstance(arg, torch.Tensor) for arg in args),
        "op": least["op"],
        "floor": least["floor"],
        "over_floor": least["op"] - least["floor"],
        "implementation": least["implementation"],
        "op_median": times["op"].median,
        "floor_median": times["floor"].median,
    }


def main() -> int:
    """Measure every op of the first pack."""
    parser = options(__doc__)
    parser.add_argument("--rounds", type=int, default=21)
    chosen = parser.parse_args()
    rounds, calls = (2, 50) if chosen.quick else (chosen.rounds, 2000)
    root = find.own_root()
    rows = [
        measure(read_kernel(root, name), rounds=rounds, calls=calls) for name in kernel_names(root)
    ]
    finish("dispatch, microseconds of a repeated call", rows, [], chosen.json)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
