"""What compiled code takes for granted of its calls: sizes that are numbers in it, and facts.

Helion reads sizes as symbols. Where it has to know something of one, as whether a view has a single
column, it looks at the call at hand, and goes on as if that held of all calls. PyTorch notes each
such look as a guard. Helion's own key has some of them, and none of derived sizes: it gives code
that was made of a view with one column to calls whose views have more.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import sympy
import torch
from torch.utils._sympy.printers import PythonPrinter

from kernelpkg.expr.language import ExprError, parse_expr
from kernelpkg.launch.classes import Exact

_OPPOSITE: Final = {sympy.Ne: sympy.Eq, sympy.Ge: sympy.Lt, sympy.Gt: sympy.Le}
"""A comparison and its opposite are one fact."""


def exact_of(bound: Any) -> Exact:
    """Return which sizes, strides and whole numbers of a bound kernel's calls are in its code."""
    known = bound.env.specialized_vars

    def keyed(value: Any) -> bool:
        """Whether Helion has code of its own for each value of a size.

        Symbols are taken as they were made: one that a comparison has replaced with a number since
        is no part of Helion's key; that it was is a fact. Of 0 and 1 the class says what they are.
        """
        if not isinstance(value, torch.SymInt):
            return int(value) > 1
        return bool(value.node._expr.free_symbols <= known)

    names = list(bound.kernel.signature.parameters)
    strides = {(s.base.local_name, s.idx) for s in bound.env.specialized_strides}
    found: dict[int, tuple[bool, ...]] = {}
    for place, (name, arg) in enumerate(zip(names, bound.fake_args, strict=False)):
        if isinstance(arg, torch.Tensor):
            marks = ((name, at) in strides for at in range(arg.ndim))
            found[place] = (*map(keyed, arg.shape), *marks)
        elif isinstance(arg, int | torch.SymInt):  # an int is a hl.constexpr, part of the key
            found[place] = (not isinstance(arg, torch.SymInt) or keyed(arg),)
        elif isinstance(arg, list | tuple):
            found[place] = tuple(map(keyed, arg))
    return found


def facts_of(bound: Any) -> Mapping[str, bool]:
    """Return what a bound kernel takes for granted that no class of calls says, and which way.

    Facts are expressions over the arguments `a0`, `a1` and so on. They are looked for again once
    Helion has made code of it, which may have to know more.
    """
    guards = bound.env.shape_env.guards
    before: tuple[int, dict[str, bool]] = getattr(bound, "_kernelpkg_facts", (0, {}))
    if before[0] == len(guards):
        return before[1]
    places, values = _symbols(bound)
    exact = {known: symbol for symbol, (known, _) in reversed(values.items()) if known.is_number}
    found = _layouts(bound, places)
    for guard in guards:
        expr, holds = _positive(guard.expr)
        if isinstance(expr, sympy.Eq):  # with a number, maybe, that a size of each call is
            expr = sympy.Eq(*(exact.get(side, side) for side in expr.args), evaluate=False)
        free = expr.free_symbols
        if not free or not free <= places.keys() or _follows(expr, holds, values):
            continue
        try:
            parse_expr(text := _written(expr, places))
        except ExprError:  # as of a maximum: then of each size that it reads, what it is
            for symbol in free:
                found[f"{places[symbol]} == {values[symbol][1]}"] = True
        else:
            found[text] = holds
    bound._kernelpkg_facts = len(guards), found
    return found


def _layouts(bound: Any, places: Mapping[Any, str]) -> dict[str, bool]:
    """Return what is known of the strides of tensors, where the function asks what is contiguous.

    PyTorch answers that without a guard: a stride may have no symbol, but be a product of sizes.
    """
    found: dict[str, bool] = {}
    code = getattr(getattr(bound.kernel, "fn", None), "__code__", None)
    if "is_contiguous" not in getattr(code, "co_names", ()):
        return found
    for place, arg in enumerate(bound.fake_args):
        if not isinstance(arg, torch.Tensor):
            continue
        shape, strides = ([*map(_at_hand, of)] for of in (arg.shape, arg.stride()))
        like = torch.empty_strided(shape, strides, device="meta")
        found[f"a{place}.is_contiguous()"] = like.is_contiguous()
        for at, stride in enumerate(arg.stride()):
            text = f"a{place}.stride({at})"
            expr = stride.node._expr if isinstance(stride, torch.SymInt) else None
            if expr is not None and places.get(expr) != text and expr.free_symbols <= places.keys():
                found[f"{text} == {_written(expr, places)}"] = True
    return found


def _at_hand(value: Any) -> int:
    return int(value.node.hint if isinstance(value, torch.SymInt) else value)


def _written(expr: Any, places: Mapping[Any, str]) -> str:
    texts = {symbol.name: text for symbol, text in places.items()}
    return re.sub(r"\w+", lambda word: texts.get(word[0], word[0]), PythonPrinter().doprint(expr))


def _positive(expr: Any) -> tuple[Any, bool]:
    """Return a comparison or its opposite, and whether it is itself."""
    opposite = _OPPOSITE.get(type(expr))
    return (expr, True) if opposite is None else (opposite(*expr.args, evaluate=False), False)


def _symbols(bound: Any) -> tuple[dict[Any, str], dict[Any, tuple[Any, int]]]:
    """Return how expressions read the symbols of a kernel's arguments, and what is known of each:
    what its class says, as a number or as a symbol of what it may be, and its value at hand."""
    texts: dict[Any, str] = {}
    values: dict[Any, tuple[Any, int]] = {}
    exact = exact_of(bound)
    hints = getattr(bound.env.shape_env, "backed_var_to_val", {})  # of whole numbers too
    names = [*bound.kernel.signature.parameters]
    # A stride that the host part reads has another symbol than that of the tensor.
    read = {
        (source.base.local_name, source.idx): value
        for source, value in getattr(bound.env, "_input_symint_cache", {}).items()
        if hasattr(getattr(source, "base", None), "local_name")
    }

    def note(value: Any, text: str, *, fixed: bool, least: int) -> None:
        if not isinstance(value, torch.SymInt):
            return
        symbol = value.node._expr
        at_hand = hints.get(symbol) if value.node.hint is None else value.node.hint
        if isinstance(symbol, sympy.Symbol) and symbol not in texts and at_hand is not None:
            hint = int(at_hand)
            known = fixed or (least >= 0 and hint < least)
            free = sympy.Symbol(f"t{len(texts)}", integer=True, nonnegative=True) + max(least, 0)
            texts[symbol] = text
            values[symbol] = (sympy.Integer(hint) if known else free), hint

    for place, arg in enumerate(bound.fake_args):
        marks, name = exact.get(place) or (), f"a{place}"
        if isinstance(arg, torch.Tensor):
            for at, size in enumerate(arg.shape):
                note(size, f"{name}.shape[{at}]", fixed=marks[at], least=2)
            for at, stride in enumerate(arg.stride()):
                fixed, least = marks[arg.ndim + at], 2 if _at_hand(arg.shape[at]) > 1 else -1
                for value in (stride, read.get((names[place], at))):
                    note(value, f"{name}.stride({at})", fixed=fixed, least=least)
        elif isinstance(arg, torch.SymInt):
            note(arg, name, fixed=marks[0], least=2)
        elif isinstance(arg, list | tuple):
            for at, item in enumerate(arg[:65]):  # as far as expressions can read one
                note(item, f"{name}[{at}]", fixed=marks[at], least=2)
    return texts, values


def _follows(expr: Any, holds: bool, values: Mapping[Any, tuple[Any, int]]) -> bool:
    """Whether the class of a call says by itself that a comparison holds, or does not."""
    put = {symbol: values[symbol][0] for symbol in expr.free_symbols}
    if isinstance(expr, sympy.Eq | sympy.Lt | sympy.Le):
        apart = sympy.expand((expr.lhs - expr.rhs).xreplace(put))
        if isinstance(expr, sympy.Eq):
            return bool(apart.is_zero if holds else apart.is_nonzero)
        below = apart.is_negative if isinstance(expr, sympy.Lt) else apart.is_nonpositive
        return bool(below if holds else below is False)
    return expr.xreplace(put) in (sympy.true if holds else sympy.false,)
