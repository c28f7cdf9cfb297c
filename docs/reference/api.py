"""Writes api.md beside this file, from the docstrings of the public names: `make docs`.

The sources are read and not imported, so that this needs neither PyTorch nor Helion.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).absolute().parents[2]
PAGE = Path(__file__).with_name("api.md")
WIDTH = 100

HEAD = """\
# Python

What `import kernelpkg` and `from kernelpkg import plugin` offer. `make docs` writes this page from
the docstrings. Ops are `torch.ops.<namespace>.<kernel>`; what they take stands in their
[manifests](manifest.md), and the [command line](cli.md) does everything else.
"""

Function = ast.FunctionDef | ast.AsyncFunctionDef
FIRST = ("self", "cls")
"""What methods get without its being given."""


def tree_of(module: str) -> ast.Module:
    """Return the tree of a module of the package, named with dots."""
    path = ROOT.joinpath(*module.split("."))
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return ast.parse(path.read_text(encoding="utf-8"))


def find(module: str, name: str) -> Function | ast.ClassDef:
    """Return the definition of a name, wherever a module has it from; of overloads the last."""
    tree = tree_of(module)
    for node in reversed(tree.body):
        if isinstance(node, Function | ast.ClassDef) and node.name == name:
            return node
        if isinstance(node, ast.ImportFrom) and node.module is not None:
            for alias in node.names:
                if name == (alias.asname or alias.name):
                    return find(node.module, alias.name)
    raise LookupError(f"{module} has no {name}")


def public() -> dict[str, list[Function | ast.ClassDef]]:
    """Return the definitions of all public names, by the module that offers them."""
    import kernelpkg

    errors_last = sorted(kernelpkg._PLACES.items(), key=lambda item: item[1] == "errors")
    ours = [find(f"kernelpkg.{place}", name) for name, place in errors_last]
    plugin = tree_of("kernelpkg.vllm.plugin").body
    functions = [node for node in plugin if isinstance(node, Function) and node.name[0] != "_"]
    report = find("kernelpkg.vllm.route_counts", "RouteReport")  # what some of them return
    return {"kernelpkg": ours, "kernelpkg.plugin": [*functions, report]}


def members(cls: ast.ClassDef) -> list[Function]:
    """Return the public methods and properties of a class, and its `__call__`."""
    functions = [node for node in cls.body if isinstance(node, Function)]
    return [node for node in functions if node.name[0] != "_" or node.name == "__call__"]


def is_property(function: Function) -> bool:
    """Whether a method is read like an attribute."""
    return any("property" in ast.unparse(decorator) for decorator in function.decorator_list)


def fields(cls: ast.ClassDef) -> list[ast.AnnAssign]:
    """Return the fields of an attrs class."""
    return [node for node in cls.body if isinstance(node, ast.AnnAssign)]


def parameters(node: Function | ast.ClassDef) -> list[str]:
    """Return the names that callers may give to a function, or to make an instance of a class."""
    if isinstance(node, ast.ClassDef):
        made = [member for member in node.body if isinstance(member, Function)]
        return [name for one in made if one.name == "__init__" for name in parameters(one)]
    args = node.args
    every = [*args.posonlyargs, *args.args, args.vararg, *args.kwonlyargs, args.kwarg]
    return [arg.arg for arg in every if arg is not None and arg.arg not in FIRST]


def sections(node: Function | ast.ClassDef) -> tuple[str, dict[str, str]]:
    """Return what a docstring says before its sections, and the text of each of them."""
    text = inspect.cleandoc(ast.get_docstring(node, clean=True) or "")
    first, *rest = re.split(r"^(Args|Attributes|Returns|Raises):\n", text, flags=re.MULTILINE)
    texts = [inspect.cleandoc(part) for part in rest[1::2]]
    return first.strip(), dict(zip(rest[::2], texts, strict=True))


def entries(text: str) -> dict[str, str]:
    """Return the entries of a section by their names, each as one line."""
    parts = re.split(r"^(\w+): ", text, flags=re.MULTILINE)
    texts = [" ".join(said.split()) for said in parts[2::2]]
    return dict(zip(parts[1::2], texts, strict=True))


def signature(node: Function, name: str) -> str:
    """Return how a function is called, on one line or with a line for each argument."""
    args = [part for part in _arguments(node.args) if part not in FIRST]
    returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    line = f"{name}({', '.join(args)}){returns}"
    if len(line) <= WIDTH:
        return line
    return f"{name}(\n{''.join(f'    {part},{chr(10)}' for part in args)}){returns}"


def _arguments(args: ast.arguments) -> Iterator[str]:
    """Yield the arguments of a function as people write them, with the `*` and `/` between them."""
    plain = [*args.posonlyargs, *args.args]
    defaults = [None] * (len(plain) - len(args.defaults)) + args.defaults
    for place, (arg, default) in enumerate(zip(plain, defaults, strict=True), 1):
        yield _argument(arg, default)
        if place == len(args.posonlyargs):
            yield "/"
    if args.vararg or args.kwonlyargs:
        yield f"*{_argument(args.vararg) if args.vararg else ''}"
    for arg, default in zip(args.kwonlyargs, args.kw_defaults, strict=True):
        yield _argument(arg, default)
    if args.kwarg:
        yield f"**{_argument(args.kwarg)}"


def _argument(arg: ast.arg, default: ast.expr | None = None) -> str:
    kind = f": {ast.unparse(arg.annotation)}" if arg.annotation else ""
    return f"{arg.arg}{kind}{f' = {ast.unparse(default)}' if default else ''}".replace("'", '"')


def table(head: str, rows: dict[str, str]) -> list[str]:
    """Return a table of two columns, with an empty line before it."""
    cells = {name: said.replace("|", r"\|") for name, said in rows.items()}
    lines = [f"| `{name}` | {said} |" for name, said in cells.items()]
    return ["", f"| {head} | |", "| --- | --- |", *lines]


def described(node: Function | ast.ClassDef) -> Iterator[str]:
    """Yield the lines of a docstring."""
    first, found = sections(node)
    yield first
    for section, head in (("Args", "argument"), ("Attributes", "attribute")):
        if section in found:
            yield from table(head, entries(found[section]))
    if "Returns" in found:
        yield from ("", f"**Returns** {found['Returns']}")
    if "Raises" in found:
        yield from table("raises", entries(found["Raises"]))


def page() -> str:
    """Return the text of api.md."""
    lines = [HEAD.rstrip()]
    for module, nodes in public().items():
        lines += ["", f"## {module}"]
        for node in nodes:
            alone = module == "kernelpkg.plugin" and isinstance(node, ast.ClassDef)
            name = node.name if alone else f"{module}.{node.name}"
            lines += ["", f"### {node.name}", "", "```python"]
            if isinstance(node, Function):
                lines += [signature(node, name), "```", "", *described(node)]
                continue
            bases = ", ".join(map(ast.unparse, node.bases))
            lines += [f"class {name}{f'({bases})' if bases else ''}"]
            lines += [f"    {ast.unparse(field)}".replace("'", '"') for field in fields(node)]
            lines += ["```", ""]
            lines += described(node)
            facts = {m.name: sections(m)[0] for m in members(node) if is_property(m)}
            if facts:
                lines += table("property", {n: " ".join(s.split()) for n, s in facts.items()})
            for member in members(node):
                if not is_property(member) and ast.get_docstring(member):
                    lines += ["", f"#### {node.name}.{member.name}", "", "```python"]
                    lines += [signature(member, member.name), "```", "", *described(member)]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
