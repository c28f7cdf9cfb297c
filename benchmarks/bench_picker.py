"""The config picker: a shape that is new and one that was seen, ours against vLLM's.

Both sides get the same tensors and the same tuned keys, those that vLLM ships. `theirs` is vLLM's
picker: it reads sizes off the arguments, and looks into its cache first. `axes + pick` is our
like of it: all axes of the manifest are read off the arguments, then the rules are asked. `pick`
is the rules alone. `resolve` is all that our dispatcher does for a new signature: the call is held
against [args] and [guard], axes are read, and the config is picked. `look-up` is all that it does
for a signature that it has seen, launch apart; no picker is asked then.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
import vllm_pickers
from report import finish, options, target
from stub_backend import StubBackend
from timing import Time, interleave, per_call
from vllm_pickers import TheirPicker

from kernelpkg.configs.selection import ConfigSelection, make_selection
from kernelpkg.configs.store import ConfigFile, TunedCase
from kernelpkg.expr.language import evaluate
from kernelpkg.manifest.guards import CallCheck, compile_axes
from kernelpkg.manifest.spec import KernelSpec, Scalar
from kernelpkg.packs import find
from kernelpkg.packs.read import kernel_names, read_kernel
from kernelpkg.runtime.dispatch import Dispatcher

FIRST, REPEATED = 5.0, 0.5
"""The targets, in microseconds."""

KEYS = 300
"""How many tuned keys the targets speak of."""


def tokens(count: int) -> list[int]:
    """Return token counts between, at and above the tuned ones, spread evenly up to 1,200."""
    return sorted({max(1, round(1200 * (place + 1) / count)) for place in range(count)})


def calls(spec: KernelSpec, keys: Sequence[Mapping[str, Any]], count: int) -> list[dict[str, Any]]:
    """Return the axis values of distinct calls: at all tuned sizes, over many token counts."""
    named = [key for key in keys if key]
    grid = {axis: sorted({key[axis] for key in named}) for axis in named[0]}
    sizes = [axis for axis in grid if axis != "num_tokens"]
    products = list(itertools.product(*(grid[axis] for axis in sizes)))
    counts = tokens(-(-count // len(products)))
    return [
        {**spec.defaults, **dict(zip(sizes, values, strict=True)), "num_tokens": number}
        for values, number in itertools.product(products, counts)
    ][:count]


class Arguments:
    """Makes the arguments of calls; each has one storage for all, which nothing reads."""

    def __init__(self, spec: KernelSpec) -> None:
        self.spec = spec
        self.storage: dict[tuple[str, torch.dtype], torch.Tensor] = {}

    def make(self, values: Mapping[str, Any]) -> tuple[Any, ...]:
        """Return the arguments of one call, in order."""
        return tuple(self._argument(arg, values) for arg in self.spec.args)

    def _argument(self, arg: Any, values: Mapping[str, Any]) -> Any:
        variant = next(
            (v for v in arg.variants if v.when is None or evaluate(v.when, values)), None
        )
        if variant is None:
            return None
        if variant.value is not None:
            return evaluate(variant.value, values)
        shape = [evaluate(dim.expr, values) for dim in variant.shape]
        dtype = getattr(torch, evaluate(variant.dtype, values))
        strides = torch.empty(shape, device="meta").stride()
        if variant.strides is not None:
            strides = [1 if s is None else evaluate(s, values) for s in variant.strides]
        size = 1 + sum((n - 1) * s for n, s in zip(shape, strides, strict=True))
        key = (arg.name, dtype)
        if key not in self.storage or self.storage[key].numel() < size:
            self.storage[key] = torch.empty(size, dtype=dtype)
        return self.storage[key].as_strided(shape, strides)


class OurSide:
    """One kernel of ours over the keys of vLLM."""

    def __init__(self, spec: KernelSpec, keys: Sequence[Mapping[str, Scalar]]) -> None:
        self.spec = spec
        self.file = ConfigFile(
            kernel=spec.name,
            platform="nvidia_h200",
            configs=({"num_warps": 4},),
            cases=tuple(TunedCase(key=dict(key), config=0) for key in keys),
        )
        self.axes = compile_axes(spec)
        self.acceptance = CallCheck(spec, spec.name)
        names = [axis.name for axis in spec.axes]
        self.places = [names.index(axis) for axis in spec.key_axes]

    def selection(self) -> ConfigSelection:
        """Return a selection that has seen no call."""
        return make_selection(self.spec, "nvidia_h200", [self.file])

    def values(self, args: tuple[Any, ...]) -> tuple[Scalar, ...]:
        """Return the axis values that rules speak of."""
        found = self.axes(*args)
        return tuple([found[place] for place in self.places])

    def picked(self, selection: ConfigSelection, args: tuple[Any, ...]) -> Mapping[str, Scalar]:
        """Return the key that a call gets."""
        table = selection.tables[0]
        index = table.compiled.picker.pick(self.values(args)).index
        return {} if index is None else table.compiled.keys[index]

    def dispatch(self) -> Callable[..., Any]:
        """Return the op's implementation, with launchers that do nothing."""
        return Dispatcher(
            op=self.spec.name,
            schema=self.spec.schema,
            acceptance=lambda: self.acceptance,
            plan=self.selection(),
            backend=StubBackend(_nothing),
        ).implementation()


def _nothing(*_: Any) -> tuple[()]:
    """Stands for a launch, and has no results."""
    return ()


Sides = dict[str, Callable[[], float]]


def first_sides(ours: OurSide, theirs: TheirPicker, made: list[tuple[Any, ...]]) -> Sides:
    """Every call is new to its side: caches are emptied, and plans built, before the clock."""
    count = len(made)

    def their_side() -> float:
        theirs.cache.clear()
        function, keys = theirs.function, theirs.keys
        return per_call(lambda: [function(args, keys) for args in made], count)

    def axes_and_pick() -> float:
        pick, values = ours.selection().tables[0].compiled.picker.pick, ours.values
        return per_call(lambda: [pick(values(args)) for args in made], count)

    def pick_alone() -> float:
        pick = ours.selection().tables[0].compiled.picker.pick
        values = [ours.values(args) for args in made]
        return per_call(lambda: [pick(value) for value in values], count)

    def resolve() -> float:
        options, axes_of = ours.selection().options, ours.acceptance.axes_of
        return per_call(lambda: [next(options(axes_of(args), args)) for args in made], count)

    return {"theirs": their_side, "axes+pick": axes_and_pick, "pick": pick_alone, "all": resolve}


def repeated_sides(ours: OurSide, theirs: TheirPicker, args: tuple[Any, ...], calls: int) -> Sides:
    """One call, again and again."""
    times = range(calls)
    selection, call = ours.selection(), ours.dispatch()
    pick, values = selection.tables[0].compiled.picker.pick, ours.values
    value, function, keys = values(args), theirs.function, theirs.keys
    return {
        "theirs": lambda: per_call(lambda: [function(args, keys) for _ in times], calls),
        "axes+pick": lambda: per_call(lambda: [pick(values(args)) for _ in times], calls),
        "pick": lambda: per_call(lambda: [pick(value) for _ in times], calls),
        "all": lambda: per_call(lambda: [call(*args) for _ in times], calls),
    }


def row(kernel: str, keys: int, seen: str, times: Mapping[str, Time], same: str) -> dict[str, Any]:
    """Return the best microseconds of each side; `ratio` is between theirs and axes + pick."""
    return {
        "kernel": kernel,
        "keys": keys,
        "shape": seen,
        "theirs": times["theirs"].least,
        "axes+pick": times["axes+pick"].least,
        "pick": times["pick"].least,
        "resolve/look-up": times["all"].least,
        "ratio": times["theirs"].least / times["axes+pick"].least,
        "medians": " ".join(f"{time.median:.2f}" for time in times.values()),
        "same_picks": same,
    }


def targets(rows: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Hold the kernel with the most keys against the targets."""
    for shape, most in (("first seen", FIRST), ("repeated", REPEATED)):
        for side in ("axes+pick", "pick", "resolve/look-up"):
            got = max(r[side] for r in rows if r["shape"] == shape and r["keys"] >= KEYS)
            yield target(f"{shape}, {KEYS} keys, {side}", got, most, "us")


def main() -> int:
    """Measure every kernel of the first pack whose picker vLLM has."""
    parser = options(__doc__)
    parser.add_argument("--rounds", type=int, default=11)
    chosen = parser.parse_args()
    rounds, shapes, times = (2, 40, 200) if chosen.quick else (chosen.rounds, 360, 3000)
    place = vllm_pickers.wheel()
    if place is None:
        print("vLLM's wheel is not unpacked; set KERNELPKG_VLLM_DIR", file=sys.stderr)
        return 2
    root = find.own_root()
    rows: list[dict[str, Any]] = []
    for kernel in kernel_names(root):
        platforms = vllm_pickers.platforms(place, kernel)
        if not platforms:
            continue
        preferred = "nvidia_h200" if "nvidia_h200" in platforms else "nvidia_h100"
        theirs = vllm_pickers.read(place, kernel, preferred)
        spec = read_kernel(root, kernel)
        ours = OurSide(spec, theirs.ours)
        arguments = Arguments(spec)
        found = calls(spec, theirs.ours, shapes)
        made = [arguments.make(values) for values in found]
        selection = ours.selection()
        agree = sum(theirs.pick(args) == ours.picked(selection, args) for args in made)
        same = f"{agree}/{len(made)}"
        first = interleave(first_sides(ours, theirs, made), rounds=rounds)
        again = interleave(repeated_sides(ours, theirs, made[len(made) // 2], times), rounds=rounds)
        rows += [
            row(kernel, len(theirs.keys), "first seen", first, same),
            row(kernel, len(theirs.keys), "repeated", again, same),
        ]
    finish("picker, microseconds", rows, list(targets(rows)), chosen.json)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
