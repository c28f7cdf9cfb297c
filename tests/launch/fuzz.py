"""Random calls of the launcher in C, with arguments of every kind; run by test_fuzz.py.

    python fuzz.py EXTENSION DRIVER SEED CASES

What is wrong is found by what the extension was compiled with; here, nothing may raise but what it
says that it raises.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import random
import sys
import threading
from importlib.machinery import ExtensionFileLoader

import torch
from torch.autograd import forward_ad

from kernelpkg.errors import KernelpkgError
from kernelpkg.launch import native

KINDS = "tTiIfFbBsSlL"
DTYPES = [torch.float32, torch.bfloat16, torch.int8, torch.bool, torch.complex64, torch.int64]
DTYPES += [torch.float8_e4m3fn, torch.float64, torch.uint8]


class Plain(torch.Tensor):
    """A tensor with memory of its own, as vLLM's parameters are."""


class Wrapping(torch.Tensor):
    """A tensor that only says what it would be."""

    @staticmethod
    def __new__(cls):
        return torch.Tensor._make_wrapper_subclass(cls, (2, 3))

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        raise RuntimeError("asked")


class Hidden(torch.Tensor):
    """A tensor whose class has lost what is asked for."""

    @property
    def requires_grad(self):
        raise AttributeError("gone")

    def data_ptr(self):
        raise AttributeError("gone")


class Odd:
    """What looks like a tensor, and answers badly."""

    requires_grad = property(lambda self: 1 // 0)


def a_tensor(rng: random.Random) -> torch.Tensor:
    """Return a tensor: of any rank, empty, strided, with an offset, of a subclass."""
    sizes = [rng.choice([0, 1, 1, 2, 3, 5, 8]) for _ in range(rng.choice([0, 1, 2, 2, 3, 9]))]
    made = torch.zeros(sizes, dtype=rng.choice(DTYPES))
    for _ in range(rng.randrange(3)):
        if made.ndim and rng.random() < 0.5:
            made = made.transpose(rng.randrange(made.ndim), rng.randrange(made.ndim))
        elif made.ndim and made.shape[0] > 1:
            made = made[1:]
    choice = rng.random()
    if choice < 0.1:
        return made.as_subclass(rng.choice([Plain, Hidden]))
    if choice < 0.2:
        return torch.nn.Parameter(made, requires_grad=made.is_floating_point())
    return made


def with_tangent(value: object) -> object:
    """Return a tensor that has a tangent, where that can be."""
    if isinstance(value, torch.Tensor) and value.is_floating_point() and value.itemsize > 1:
        return forward_ad.make_dual(value, torch.ones_like(value))
    return value


def strange(rng: random.Random) -> object:
    """Return what no argument should be."""
    return rng.choice(
        [
            lambda: None,
            object,
            Odd,
            Wrapping,
            lambda: torch.zeros(2, 2, device="meta"),
            lambda: torch.eye(2).to_sparse(),
            lambda: torch.zeros([1] * 60),
            lambda: torch.zeros(3, dtype=torch.complex64).conj(),
            lambda: rng.choice([1, -1]) << rng.randrange(200),
            lambda: 10**400,
            lambda: rng.choice([float("nan"), float("inf"), -0.0, 5e-324]),
            lambda: rng.choice(["", "\0", "a\0b", "\ud800", "é" * 9, "x" * 5000]),
            lambda: [rng.choice([0, -1, 2**63 - 1, 2**63, True, None, 1.5])] * rng.randrange(4),
            lambda: tuple(range(rng.choice([0, 3, 400]))),
            lambda: b"bytes",
            lambda: torch.Tensor,
        ]
    )()


def an_argument(rng: random.Random, kind: str) -> object:
    """Return an argument of a kind, or now and then one of none."""
    if rng.random() < 0.1:
        return strange(rng)
    if kind.isupper() and rng.random() < 0.3:
        return None
    return {
        "t": lambda: a_tensor(rng),
        "i": lambda: rng.randrange(-3, 3),
        "f": lambda: rng.choice([0.0, -0.0, 1.5, float("nan"), 2]),
        "b": lambda: rng.random() < 0.5,
        "s": lambda: rng.choice(["a", "b", ""]),
        "l": lambda: [rng.randrange(3) for _ in range(rng.randrange(4))],
    }[kind.lower()]()


def a_recorded(rng: random.Random, extension: object) -> object:
    """Return a recorded launch, or None where what was given cannot be one."""
    device = torch.device("cpu")
    allocations = tuple(
        ((2, rng.randrange(3)), (3, 1), rng.choice(DTYPES), device) for _ in range(rng.randrange(3))
    )
    params = tuple(
        rng.choice(
            [
                (rng.randrange(-4, 6), rng.randrange(-8, 8)),
                (rng.choice(["fp32", "fp64", "fp32", "i32"]), rng.randrange(-1, 6)),
                rng.randbytes(rng.randrange(10)),
            ]
        )
        for _ in range(rng.randrange(6))
    )
    results = rng.choice([None, 0, -1, (0,), (1, 0), (), 2**70])
    grid = tuple(rng.choice([1, 2, 0, 70000]) for _ in range(rng.choice([3, 3, 3, 2])))
    attributes = rng.choice([(), (), ((4, 2**500),), ((1, -1),), ((2, 2**600),)])
    given = (5, grid, rng.choice([32, 0, 1024]), 0, params, allocations, results)
    try:
        made = extension.Recorded(*given, rng.choice([-1, -1, -1, 0, 99]), attributes, (1, "x"))
        assert made.any == (1, "x")
        return made
    except (ValueError, OverflowError):
        return None


EXPECTED = (ValueError, TypeError, RuntimeError, ZeroDivisionError, KernelpkgError)


def one_op(rng: random.Random, extension: object, cases: int) -> int:
    """Make an op of random kinds, call it and fill its table; return how often it answered."""
    kinds = "".join(rng.choice(KINDS) for _ in range(rng.choice([0, 1, 2, 4, 7])))
    answered = 0

    def launch(*args):
        if rng.random() < 0.1:
            calls.clear()
        return 1 // 0 if rng.random() < 0.05 else len(args)

    def resolve(args):
        entry = a_recorded(rng, extension) if rng.random() < 0.7 else launch
        if entry is not None:
            calls.put(args, entry, rng.randrange(5), rng.choice([None, launch]), rng.randrange(5))
        return

    def refuse(args):
        raise ValueError(f"{len(args)} arguments")

    defaults = tuple(an_argument(rng, kind) for kind in kinds[len(kinds) - rng.randrange(2) :])
    calls = extension.Calls(
        kinds,
        resolve,
        grad_enabled=rng.choice([torch.is_grad_enabled, bool, lambda: 1 // 0]),
        check_grad=refuse,
        defaults=defaults if len(defaults) < len(kinds) else (),
        limit=rng.choice([1, 3, 100]),
        capturing=rng.choice([None, bool, lambda: rng.random() < 0.5, lambda: 1 // 0]),
    )
    seen = []
    for _ in range(cases):
        args = rng.choice(seen) if seen and rng.random() < 0.5 else None
        if args is None:
            args = [an_argument(rng, kind) for kind in kinds]
            if rng.random() < 0.05:
                args = args[:-1] if rng.random() < 0.5 else [*args, 1]
            seen.append(args)
        try:
            what = rng.random()
            if what < 0.79:
                calls.call(*args)
                answered += 1
            elif what < 0.8:
                with forward_ad.dual_level():
                    calls.call(*map(with_tangent, args))
            elif what < 0.9:
                calls.get(args)
                calls.get(iter(args))
            elif what < 0.95:
                calls.put(args, launch, rng.choice([0, 9, -1, 70000, 2**70]))
            elif what < 0.97:
                calls.accept_any(
                    [rng.randrange(-1, len(kinds) + 1) for _ in range(rng.randrange(3))]
                )
            else:
                recorded = a_recorded(rng, extension)
                assert recorded is None or recorded(*args) != 0
        except EXPECTED:
            pass
    assert len(calls) <= 100
    assert sum(calls.count(place) for place in range(12)) <= cases
    return answered


def main(extension_path: str, driver_path: str, seed: int, cases: int) -> None:
    """Run the cases, the last of them in threads at once."""
    loader = ExtensionFileLoader("kernelpkg.launch._native", extension_path)
    extension = importlib.util.module_from_spec(
        importlib.util.spec_from_loader(loader.name, loader)
    )
    loader.exec_module(extension)
    for call in (extension.Calls, extension.Recorded, lambda: extension.open_driver("x")):
        with contextlib.suppress(TypeError, RuntimeError):
            call()
    native.set_up(extension)
    extension.open_driver(driver_path)
    stub = ctypes.CDLL(driver_path)
    rng = random.Random(seed)
    answered = 0
    for number in range(cases // 50):
        stub.stub_fail(b"cuLaunchKernelEx", rng.choice([0, 0, 1, 701]))
        answered += one_op(rng, extension, 50)
        assert number or extension.INTERFACE
    threads = [
        threading.Thread(target=one_op, args=(random.Random(seed + place), extension, 500))
        for place in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(f"answered {answered} of {cases}")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
