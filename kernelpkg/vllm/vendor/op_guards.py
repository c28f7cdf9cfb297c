"""[args] and [guard] as asserts at the top of a vendored op: it refuses what the pack refuses.

They are in the words of its arguments, and such that Helion 1.4 takes them for host code: it has no
short cut in `x is None or x.ndim == 1`, and no answer to `and` between strides.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import reduce
from typing import Final, TypeGuard

from attrs import evolve, field, frozen

from kernelpkg.expr.language import DTYPES, Expr, tests_none
from kernelpkg.manifest.spec import ArgSpec, ArgVariant, Dim, KernelSpec
from kernelpkg.vllm.vendor.op_code import STEP, WIDTH, comment, literal, operands, python
from kernelpkg.vllm.vendor.op_inputs import tupled
from kernelpkg.vllm.vendor.op_sources import Import, in_helion

_WHY: Final = "Keys know their product alone, and code for one of 1 is wrong for more."


@frozen
class _Claim:
    """What has to hold, as code, in a sentence, and in a few words for where it has no room.

    `given` are the optional arguments that it reads into.
    """

    code: str
    words: str
    brief: str
    given: tuple[str, ...] = ()

    def lines(self, indent: int) -> list[str]:
        """Return the assertion, which will stand `indent` columns to the right."""
        for words in (self.words, self.brief):
            line = f"assert {self.code}, {literal(words)}"
            if len(line) + indent <= WIDTH:
                return [line]
        if len(f"assert {self.code}, (") + indent <= WIDTH:
            return [f"assert {self.code}, (", f"{' ' * STEP}{literal(self.brief)}", ")"]
        parts = (f"{' ' * STEP}{part}" for part in operands(self.code))
        return ["assert (", *parts, f"), {literal(self.brief)}"]


def write_guards(spec: KernelSpec, spread: Sequence[str], imports: Iterable[Import]) -> list[str]:
    """Return the lines that hold a call against [args] and [guard].

    `spread` are arguments of any rank: each shape of several leading sizes has code of its own.
    `imports` are those of the kernel.
    """
    writer = _Writer(spec=spec)
    lines = [*writer.ranks(), *writer.guards()]
    for arg in spec.args:
        if spec.schema.arg(arg.name).is_tensor:
            lines += writer.tensor(arg)
    names = {item.name for item in imports if in_helion(item) and "language" in item.text()}
    language = min(names - {"helion"}, default="helion.language")
    lines += comment(_WHY, STEP) if spread else []
    for arg in spec.args:
        for before, after in sorted(_cuts(arg)) if arg.name in spread else ():
            sizes = _between(arg.name, before, after)
            several = f"{arg.name}.ndim > {before + after + 1}"
            line = f"{language}.specialize({sizes} if {several} else ())"
            lines += writer.placed([line], writer.optional([arg.name]))
    return lines


def _cuts(arg: ArgSpec) -> set[tuple[int, int]]:
    """Return how many sizes stand before and after the one that is spread, for each variant."""
    return {cut for variant in arg.variants for cut in _cuts_of(variant.shape or ())}


def _cuts_of(shape: Sequence[Dim]) -> list[tuple[int, int]]:
    return [(i, len(shape) - i - 1) for i, dim in enumerate(shape) if dim.spread]


def _between(name: str, before: int, after: int) -> str:
    """Return the sizes of a tensor but for so many in front and behind, as code."""
    return f"{name}.shape[{before or ''}:{-after if after else ''}]".replace("[:]", "")


class _Inlining(ast.NodeTransformer):
    """Puts what axes read in the place of their names."""

    def __init__(self, trees: Mapping[str, ast.expr]) -> None:
        self.trees = trees

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return self.trees.get(node.id, node)


@frozen(kw_only=True)
class _Writer:
    """Writes what is asserted of the arguments of one kernel.

    `ranked` are the tensors whose ranks were asserted, with their shapes.
    """

    spec: KernelSpec
    ranked: dict[str, Sequence[Dim]] = field(factory=dict)

    def inlined(self, expr: Expr) -> ast.expr:
        """Return an expression in terms of arguments alone."""
        trees = {axis.name: axis.expr.tree for axis in self.spec.axes}
        found: ast.expr = _Inlining(trees).visit(ast.parse(expr.text, mode="eval").body)
        return found

    def code(self, expr: Expr) -> str:
        tree = self.inlined(expr)
        if isinstance(tree, ast.Attribute):  # on its own, a dtype would be written as a text
            return ast.unparse(tree)
        return python(evolve(expr, tree=tree), dtypes=expr.name in DTYPES)

    def optional(self, names: Iterable[str]) -> tuple[str, ...]:
        return tuple(name for name in names if name in self.spec.schema.optional)

    def into(self, *exprs: Expr) -> tuple[str, ...]:
        """Return the optional arguments that expressions read, beyond whether they are given."""
        nodes = [node for expr in exprs for node in ast.walk(self.inlined(expr))]
        tested = [node.left for node in nodes if _is_test(node)]
        read = [n.id for n in nodes if isinstance(n, ast.Name) and n not in tested]
        return self.optional(dict.fromkeys(read))

    def placed(self, lines: Sequence[str], given: Sequence[str]) -> list[str]:
        """Return lines of the function, under the condition that arguments are given."""
        if not given:
            return [f"{' ' * STEP}{line}" for line in lines]
        head = " and ".join(f"{name} is not None" for name in given)
        return [f"{' ' * STEP}if {head}:", *(f"{' ' * 2 * STEP}{line}" for line in lines)]

    def asserted(self, claims: Iterable[_Claim]) -> Iterator[str]:
        """Yield what is asserted, those that need the same arguments together."""
        groups: dict[tuple[str, ...], list[_Claim]] = {}
        for claim in claims:
            groups.setdefault(claim.given, []).append(claim)
        for given, found in groups.items():
            lines = [line for claim in found for line in claim.lines(STEP * (2 if given else 1))]
            yield from self.placed(lines, given)

    def ranks(self) -> Iterator[str]:
        """Yield the ranks of the tensors of which axes read sizes, before these are read."""
        texts = " ".join(axis.expr.text for axis in self.spec.axes)
        found = []
        for arg in self.spec.args:
            shapes = [variant.shape for variant in arg.variants if variant.shape is not None]
            if len({*shapes}) != 1 or not re.search(rf"\b{arg.name}\.(shape|stride)\b", texts):
                continue
            self.ranked[arg.name] = shapes[0]
            sizes = [dim for dim in shapes[0] if not dim.spread]
            rank = f"{'==' if sizes == [*shapes[0]] else '>='} {len(sizes)}"
            claim = _shaped(arg.name, f".ndim {rank}", shapes[0], self.optional([arg.name]))
            found.append(claim)
        return self.asserted(found)

    def guards(self) -> Iterator[str]:
        return self.asserted(
            _Claim(self.code(e), e.text, ", ".join(e.names()), self.into(e))
            for e in self.spec.guards
        )

    def tensor(self, arg: ArgSpec) -> Iterator[str]:
        """Yield what is asserted of a tensor: under conditions only what they decide.

        What is decided by strides is not asserted: Helion 1.4 cannot tell it while it compiles.
        """
        given = self.optional([arg.name])
        parts = [[*self.properties(arg.name, variant)] for variant in arg.variants]
        always = [claim for claim in parts[0] if all(claim in part for part in parts)]
        found = [evolve(c, given=tuple(dict.fromkeys((*given, *c.given)))) for c in always]
        whens = [v.when for v in arg.variants if v.when is not None]
        whens = [when for when in whens if not _is_test(self.inlined(when))]
        decided = bool(whens) and not any("stride" in self.code(when) for when in whens)
        if decided and len(whens) == len(parts):
            one_of = ast.BoolOp(ast.Or(), [self.inlined(when) for when in whens])
            code = python(evolve(whens[0], tree=one_of if whens[1:] else one_of.values[0]))
            words = f"{arg.name} is only allowed when {' or '.join(w.text for w in whens)}"
            found.append(_Claim(code, words, f"{arg.name} is not taken here", given))
        yield from self.asserted(found)
        branches = [
            (variant.when, [claim for claim in part if claim not in always and not claim.given])
            for variant, part in zip(arg.variants, parts, strict=True)
        ]
        if decided and any(claims for _, claims in branches):
            yield from self.placed([*self.branches(branches, STEP * (2 if given else 1))], given)

    def branches(
        self, branches: Sequence[tuple[Expr | None, Sequence[_Claim]]], indent: int
    ) -> Iterator[str]:
        """Yield what holds under one condition and not under another."""
        for place, (when, claims) in enumerate(branches):
            if when is not None:
                yield f"{'elif' if place else 'if'} {self.code(when)}:"
            elif claims:
                yield "else:"
            lines = [line for claim in claims for line in claim.lines(indent + STEP)]
            yield from (f"{' ' * STEP}{line}" for line in lines or ["pass"] * (when is not None))

    def properties(self, name: str, variant: ArgVariant) -> Iterator[_Claim]:
        """Yield the shape, the dtype and the layout of a variant, without what goes unsaid."""
        assert variant.shape is not None and variant.dtype is not None
        yield from self.shape(name, variant.shape)
        dtype = self.code(variant.dtype)
        if dtype != f"{name}.dtype":
            words = f"{name} must have dtype {variant.dtype.text}"
            given = self.into(variant.dtype)
            yield _Claim(f"{name}.dtype == {dtype}", words, f"dtype of {name}", given)
        strides = variant.strides
        if strides is None:
            if not all(dim.spread and dim.expr.text == "1" for dim in variant.shape):
                words = f"{name} must be contiguous"
                yield _Claim(f"{name}.is_contiguous()", words, f"strides of {name}")
            return
        shown = ", ".join("*" if stride is None else stride.text for stride in strides)
        for place, stride in enumerate(strides):
            if stride is not None:
                # Along one element no step is made, and PyTorch keeps whatever stride there was.
                code = f"{name}.stride({place}) == {self.code(stride)}"
                code = f"{code} if {name}.size({place}) > 1 else True"
                words = f"{name} must have strides [{shown}]"
                yield _Claim(code, words, f"strides of {name}", self.into(stride))

    def shape(self, name: str, shape: Sequence[Dim]) -> Iterator[_Claim]:
        """Yield what is asserted of a shape; nothing of sizes that axes are read of."""
        given = self.into(*(dim.expr for dim in shape))
        spread = next((place for place, dim in enumerate(shape) if dim.spread), None)
        if spread is None and name not in self.ranked:
            sizes = [self.code(dim.expr) for dim in shape]
            code = self.alike(sizes) or tupled(sizes)
            yield _shaped(name, f".shape == {code}", shape, given)
            return
        for place, dim in enumerate(shape):
            behind = place - len(shape)
            at = behind if spread is not None and place > spread else place
            same = (f"{name}.shape[{behind}]", f"{name}.shape[{at}]")
            if not dim.spread and self.code(dim.expr) not in same:
                yield _shaped(name, f".shape[{at}] == {self.code(dim.expr)}", shape, given)
        like = None if spread is None else shape[spread].like
        if spread is not None and like is not None:
            yield self.likened(name, shape, like)
        elif spread is not None and name not in _names(self.inlined(shape[spread].expr)):
            trees = [self.inlined(dim.expr) for dim in shape if dim.expr.text != "1"]
            times = [ast.Constant(1), *trees][-max(1, len(trees)) :]
            product = reduce(lambda left, right: ast.BinOp(left, ast.Mult(), right), times)
            count = python(evolve(shape[spread].expr, tree=product))
            yield _shaped(name, f".numel() == {count}", shape, given)

    def likened(self, name: str, shape: Sequence[Dim], like: str) -> _Claim:
        """Return that the sizes which a tensor spreads are those of another one, if it is given."""
        lent = next(arg.variants[0].shape or () for arg in self.spec.args if arg.name == like)
        sizes, others = (_between(n, *_cuts_of(s)[0]) for n, s in ((name, shape), (like, lent)))
        words = f"{name} must have the sizes of {like}"
        return _Claim(f"{sizes} == {others}", words, f"shape of {name}", self.optional([like]))

    def alike(self, sizes: Sequence[str]) -> str | None:
        """Return another tensor's shape, where that is what the sizes are."""
        for other, shape in self.ranked.items():
            whole = [f"{other}.shape[{place}]" for place in range(len(shape))]
            if sizes == whole and not any(dim.spread for dim in shape):
                return f"{other}.shape"
        return None


def _is_test(node: ast.AST) -> TypeGuard[ast.Compare]:
    """Whether an expression asks for the presence of an argument, and nothing else."""
    return isinstance(node, ast.Compare) and tests_none(node)


def _names(tree: ast.expr) -> set[str]:
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}


def _shaped(name: str, code: str, shape: Sequence[Dim], given: tuple[str, ...]) -> _Claim:
    sizes = ", ".join(f"{'*' if dim.spread else ''}{dim.expr.text}" for dim in shape)
    return _Claim(f"{name}{code}", f"{name} must be [{sizes}]", f"shape of {name}", given)
