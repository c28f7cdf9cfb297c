"""The host cost of an eager op call whose signature was seen, launch apart, on CPU tensors.

`op` is a call through `torch.ops` to our implementation: one look-up by signature, and a launcher
that does nothing. `floor` is an op of the same schema, registered in the same way, whose Python
implementation does nothing. `implementation` is ours without PyTorch's dispatcher. What a launch
costs comes on top.

`c_over_floor` and `python_over_floor` are what the look-up by signature of `launch` costs, in C and
in Python, with nothing around it; `c_without_grad` is the same as the first under `no_grad`, as
servers call, where no tensor is asked whether it requires grad. All in turns, in one run.

`backward_without_grad` is what a backward adds to the floor under `no_grad`, and
`pytorch_without_grad` what PyTorch's own way to register one adds.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from report import finish, options, target
from stub_backend import StubBackend
from timing import interleave, per_call
from torch._library.autograd import Info, make_autograd_impl
from torch.library import Library

from kernelpkg.bench.inputs import make_inputs
from kernelpkg.configs.selection import make_selection
from kernelpkg.launch import calls as calls_in_python
from kernelpkg.launch import native
from kernelpkg.manifest.cases import smallest_case
from kernelpkg.manifest.guards import CallCheck
from kernelpkg.manifest.opschema import NO_DEFAULT
from kernelpkg.manifest.spec import Backward, KernelName, KernelSpec
from kernelpkg.packs import find
from kernelpkg.packs.read import kernel_names, read_kernel
from kernelpkg.runtime.dispatch import Dispatcher
from kernelpkg.runtime.gradients import Gradient
from kernelpkg.runtime.torch_ops import RegisteredOp

NO_GRADIENT = Backward(op=KernelName("none"), args={}, grads={})
KINDS = {"Tensor": "t", "int": "i", "float": "f", "bool": "b"}


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


def look_ups(
    spec: KernelSpec, args: tuple[Any, ...], nothing: Callable[..., Any]
) -> dict[str, Callable[..., Any]]:
    """Return the functions of both launchers that know the call, where they can be had."""
    kinds = "".join(
        KINDS[arg.type].upper() if arg.optional else KINDS[arg.type] for arg in spec.schema.args
    )
    defaults = [arg.default for arg in spec.schema.args if arg.default is not NO_DEFAULT]
    extension, _ = native.load_extension()
    made = {"python": calls_in_python.Calls} | ({"c": extension.Calls} if extension else {})
    found: dict[str, Callable[..., Any]] = {}
    for name, kind in made.items():
        table = kind(
            kinds,
            unknown,
            grad_enabled=torch.is_grad_enabled,
            check_grad=unknown,
            defaults=tuple(defaults),  # PyTorch leaves out trailing arguments that equal them
        )
        launch = nothing
        if name == "c" and spec.schema.returns == 0:
            launch = extension.Recorded(0, (0, 1, 1), 32, 0, (), (), None, -1)  # launches nothing
        assert table.put(args, launch)
        found[name] = table.call
    return found


def unknown(args: tuple[Any, ...]) -> Any:
    """Answer a call that should have been known, or that should not require grad."""
    raise AssertionError(args)


def measure(spec: KernelSpec, *, rounds: int, calls: int) -> dict[str, Any]:
    """Return one row: the microseconds of a call of all sides."""
    args = make_inputs(spec, smallest_case(spec))
    result = result_of(spec, args)

    def nothing(*_: Any) -> Any:
        return result

    implementation = dispatcher(spec, nothing).implementation()
    sides = {"op": implementation, "floor": nothing, **look_ups(spec, args, nothing)}
    ops = {
        name: RegisteredOp(
            namespace=f"kernelpkg_bench_{name}",
            name=spec.name,
            schema=spec.schema.text,
            implementation=called,
            fake=nothing,
        )
        for name, called in sides.items()
    }
    for name, gradient in (("backward", NO_GRADIENT), ("pytorch", None)):
        ops[name] = RegisteredOp(
            namespace=f"kernelpkg_bench_{name}",
            name=spec.name,
            schema=spec.schema.text,
            implementation=nothing,
            fake=nothing,
            gradient=gradient and Gradient(spec.name, spec.schema, gradient),
        )
    autograd = make_autograd_impl(ops["pytorch"].call.default, Info(None, None))
    library = Library("kernelpkg_bench_pytorch", "FRAGMENT")
    library.impl(spec.name, autograd, "Autograd", with_keyset=True)
    called = {name: op.call for name, op in ops.items()} | {"implementation": implementation}

    def timed(call: Callable[..., Any], gradients: bool) -> float:
        with torch.set_grad_enabled(gradients):
            return per_call(lambda: [call(*args) for _ in range(calls)], calls)

    turns = {
        (name, gradients): lambda call=call, gradients=gradients: timed(call, gradients)
        for name, call in called.items()
        for gradients in (True, False)
    }
    times = interleave(turns, rounds=rounds)
    library._destroy()
    for op in ops.values():
        op.close()
    least = {name: times[name, True].least for name in called}
    row = {
        "op_name": spec.name,
        "arguments": len(args),
        "tensors": sum(isinstance(arg, torch.Tensor) for arg in args),
        "op": least["op"],
        "floor": least["floor"],
        "over_floor": least["op"] - least["floor"],
        "implementation": least["implementation"],
        "op_median": times["op", True].median,
        "floor_median": times["floor", True].median,
        "python_over_floor": least["python"] - least["floor"],
        "c_over_floor": None,
        "c_without_grad": None,
        "backward_without_grad": times["backward", False].least - times["floor", False].least,
        "pytorch_without_grad": times["pytorch", False].least - times["floor", False].least,
    }
    if "c" in called:
        row["c_over_floor"] = least["c"] - least["floor"]
        row["c_without_grad"] = times["c", False].least - times["floor", False].least
    return row


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
    four = [row["c_over_floor"] for row in rows if row["tensors"] == 4 and row["c_over_floor"]]
    targets = [target("look-up of 4 tensors in C, at most", max(four), 0.5, "us")] if four else []
    finish("dispatch, microseconds of a repeated call", rows, targets, chosen.json)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
