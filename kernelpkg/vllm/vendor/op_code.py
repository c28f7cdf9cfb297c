"""Python code as text, laid out in vLLM's 88 columns as `ruff format` would."""

from __future__ import annotations

import ast
import re
import textwrap
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Final

from attrs import frozen

WIDTH: Final = 88
"""The columns of a line in vLLM's files."""

STEP: Final = 4
"""The columns of one indentation."""


_SIGN: Final = re.compile(r" (?:not in|is not|\S+) \(*$")
"""An operator right before its operand."""


@frozen
class Group:
    """Items between brackets: on one line where they fit, else on lines of their own.

    The items of a call or a signature may share one line below its bracket; those of a
    collection (`each`) may not.
    """

    start: str
    items: tuple[str | Group, ...]
    end: str
    each: bool = False

    def flat(self) -> str:
        """Return it on one line; a tuple of one keeps its comma."""
        items = ", ".join(flat(item) for item in self.items)
        comma = "," * (self.each and self.end == ")" and len(self.items) == 1)
        return f"{self.start}{items}{comma}{self.end}"


Doc = str | Group


def flat(doc: Doc) -> str:
    """Return a piece of code on one line."""
    return doc if isinstance(doc, str) else doc.flat()


def call(function: str, *arguments: Doc) -> Group:
    return Group(f"{function}(", arguments, ")")


def collection(brackets: str, items: Iterable[Doc], start: str = "") -> Group:
    """Return a list, tuple, set or dictionary; `start` stands before its first bracket."""
    return Group(start + brackets[0], tuple(items), brackets[1], each=True)


def lay(doc: Doc, indent: int = 0, *, before: str = "", after: str = "") -> Iterator[str]:
    """Yield the lines of a piece of code, between texts that belong to its first and last line."""
    margin = " " * indent
    line = f"{margin}{before}{flat(doc)}{after}"
    if isinstance(doc, str) or len(line) <= WIDTH or not doc.items:
        yield line
        return
    yield f"{margin}{before}{doc.start}"
    inner = " " * (indent + STEP) + ", ".join(map(flat, doc.items))
    if len(inner) <= WIDTH and not doc.each:
        yield inner
    elif len(doc.items) == 1 and not doc.each:
        yield from lay(doc.items[0], indent + STEP)
    else:
        for item in doc.items:
            yield from lay(item, indent + STEP, after=",")
    yield f"{margin}{doc.end}{after}"


def assign(name: str, doc: Doc, indent: int = STEP) -> list[str]:
    """Return the lines of an assignment, whose value has parentheses where it needs them."""
    lines = list(lay(doc, indent, before=f"{name} = "))
    if isinstance(doc, Group) or len(lines[0]) <= WIDTH:
        return lines
    margin, inner = " " * indent, " " * (indent + STEP)
    parts = [doc] if len(inner) + len(doc) <= WIDTH else _operands(doc)
    return [f"{margin}{name} = (", *(inner + part for part in parts), f"{margin})"]


def _operands(text: str) -> list[str]:
    """Split an expression before its outermost operators."""
    tree = ast.parse(text, mode="eval").body
    cuts: list[ast.expr] = []
    match tree:
        case ast.BoolOp(values=[_, *cuts]) | ast.Compare(comparators=cuts):
            pass
        case ast.IfExp(test=test, orelse=orelse):
            cuts = [test, orelse]
        case ast.BinOp(op=op):
            sums = isinstance(op, ast.Add | ast.Sub)
            while isinstance(tree, ast.BinOp) and sums is isinstance(tree.op, ast.Add | ast.Sub):
                cuts.insert(0, tree.right)
                tree = tree.left
    found, start = [], 0
    for cut in cuts:  # expressions are ASCII, so columns are places in the text
        sign = _SIGN.search(text[start : cut.col_offset])
        if sign is not None:
            found.append(text[start : start + sign.start()])
            start += sign.start() + 1
    return [*found, text[start:]]


def comment(text: str, indent: int = 0) -> list[str]:
    """Return a text as the lines of a comment."""
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent=" " * indent + "# ",
        subsequent_indent=" " * indent + "# ",
        break_on_hyphens=False,
    )


def docstring(paragraphs: Sequence[str], indent: int = 0) -> list[str]:
    """Return the lines of a docstring; of a paragraph that begins with a number, the rest hangs."""
    margin = " " * indent
    texts = [" ".join(text.split()) for text in paragraphs]
    texts = [text.replace("\\", "\\\\").replace('"""', "'''") for text in texts]
    if len(texts) == 1 and len(f'{margin}"""{texts[0]}"""') <= WIDTH and texts[0][-1] != '"':
        return [f'{margin}"""{texts[0]}"""']
    lines: list[str] = []
    for place, text in enumerate(texts):
        listed = text[:2].rstrip(".").isdigit()
        if place and not (listed and texts[place - 1][:1].isdigit()):
            lines.append("")
        lines += textwrap.wrap(
            text,
            WIDTH,
            initial_indent=margin + '"""' * (not place),
            subsequent_indent=margin + "   " * listed,
            break_on_hyphens=False,
        )
    return [*lines, f'{margin}"""']


def unhidden(names: Iterable[str], taken: Collection[str]) -> dict[str, str]:
    """Return a name for each name that hides none of those taken: its own, or with a `_`."""
    wanted = dict.fromkeys(names)
    found = {}
    for name in wanted:
        new = name
        while new in taken or (new != name and new in wanted):
            new += "_"
        found[name] = new
    return found
