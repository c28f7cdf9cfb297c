"""The backward of an op held against both schemas: what it is called with, and what it gives."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal

from attrs import frozen

from kernelpkg.errors import PackError, suggestion
from kernelpkg.expr.language import DTYPES
from kernelpkg.files import Files
from kernelpkg.manifest.decode import TomlPath
from kernelpkg.manifest.document import Document
from kernelpkg.manifest.kernel import KernelReader
from kernelpkg.manifest.keys import KERNEL_MANIFEST
from kernelpkg.manifest.opschema import NO_DEFAULT, OpArg, OpSchema
from kernelpkg.manifest.spec import Backward, KernelSpec

_GRAD: Final = ".grad"
_AT: Final = ("op", "backward")


@frozen(kw_only=True)
class Source:
    """What one argument of a backward is: an argument of the op, a result, or one's gradient.

    `place` is that among the arguments or among the results; for a `default` it says nothing.
    """

    kind: Literal["argument", "result", "gradient", "default"]
    place: int = 0


@frozen(kw_only=True)
class BoundBackward:
    """A backward by places: `sources` are what each of its arguments is.

    `gradients` say, by the place of an argument of the op, which output is its gradient; outputs
    are the arguments that the backward writes, and then its results.
    """

    sources: tuple[Source, ...]
    gradients: Mapping[int, int]

    @property
    def differentiable(self) -> frozenset[int]:
        """The places of the results whose gradients the backward takes."""
        return frozenset(source.place for source in self.sources if source.kind == "gradient")


def bind(
    schema: OpSchema, backward: Backward, other: OpSchema
) -> tuple[BoundBackward, tuple[tuple[TomlPath, str], ...]]:
    """Return the binding of an op's backward to the schema of the op that answers it.

    What does not fit is left out, and told: the path of a key, and a message.
    """
    problems: list[tuple[TomlPath, str]] = []
    known = _known(schema)
    sources: list[Source] = []
    for arg in other.args:
        text = backward.args.get(arg.name, arg.name)
        at = ("args", arg.name) if arg.name in backward.args else ()
        wrong = _source_problem(schema, backward, arg, known)
        if wrong is not None:
            problems.append(((*_AT, *at), wrong))
        sources.append(known.get(text, Source(kind="default")))
    for name in backward.args:
        if name not in other.arg_names:
            remedy = suggestion(name, other.arg_names) or f"; it has {', '.join(other.arg_names)}"
            message = f"'{backward.op}' has no argument '{name}'{remedy}"
            problems.append(((*_AT, "args", name), message))
    if not any(source.kind == "gradient" for source in sources) and not problems:
        message = f"'{backward.op}' is given no gradient; say in args which argument is one, as in "
        problems.append((_AT, f'{message}grad = "{schema.results[0]}{_GRAD}"'))
    outputs = (*other.written, *other.results)
    if not backward.grads:
        shown = outputs[0] if outputs else "return"
        example = next(arg.name for arg in schema.args if arg.is_tensor)
        message = f"grads names no argument of the op; say whose gradients '{backward.op}' gives, "
        problems.append(((*_AT, "grads"), f'{message}as in {{ {example} = "{shown}" }}'))
    gradients: dict[int, int] = {}
    for name, output in backward.grads.items():
        wrong = _gradient_problem(schema, backward, name, outputs)
        if wrong is not None:
            problems.append(((*_AT, "grads", name), wrong))
        else:
            gradients[schema.arg_names.index(name)] = outputs.index(output)
    return BoundBackward(sources=tuple(sources), gradients=gradients), tuple(problems)


def _known(schema: OpSchema) -> dict[str, Source]:
    """Return all that an argument of a backward can be, by what a manifest calls it."""
    found = {
        name: Source(kind="argument", place=place) for place, name in enumerate(schema.arg_names)
    }
    for place, name in enumerate(schema.results):
        found[name] = Source(kind="result", place=place)
        found[name + _GRAD] = Source(kind="gradient", place=place)
    return found


def _source_problem(
    schema: OpSchema, backward: Backward, arg: OpArg, known: Mapping[str, Source]
) -> str | None:
    """Say why an argument of a backward does not get a value, or not one of its type."""
    text = backward.args.get(arg.name)
    source = known.get(arg.name if text is None else text)
    what = f"argument '{arg.name}' of '{backward.op}'"
    if source is None and text is not None:
        remedy = suggestion(text, known) or f"; there are {', '.join(known)}"
        return f"{what} is '{text}', which the op does not have{remedy}"
    if source is None:
        if arg.default is not NO_DEFAULT:
            return None
        remedy = f'say in args what it is, as in {arg.name} = "{schema.results[0]}{_GRAD}"'
        return f"{what} is not given, for the op has no argument of this name; {remedy}"
    given = schema.args[source.place] if source.kind == "argument" else None
    kind = "Tensor" if given is None else given.type
    if kind != arg.type:
        return f"{what} is a {arg.type}, and '{text or arg.name}' a {kind}; let both agree"
    if given is not None and given.optional and not arg.optional:
        remedy = f"make it '{arg.type}?', or the op's always given"
        return f"{what} is always given, and '{given.name}' may be absent; {remedy}"
    return None


def _gradient_problem(
    schema: OpSchema, backward: Backward, name: str, outputs: tuple[str, ...]
) -> str | None:
    """Say why an output of a backward is not the gradient of an argument, or return None."""
    output = backward.grads[name]
    tensors = [arg.name for arg in schema.args if arg.is_tensor]
    if name not in tensors:
        remedy = suggestion(name, tensors) or f"; there are {', '.join(tensors)}"
        return f"grads names '{name}', which is not a tensor argument of the op{remedy}"
    if output not in outputs:
        remedy = suggestion(output, outputs) or f"; it gives {', '.join(outputs)}"
        return (
            f"the gradient of '{name}' is '{output}', which '{backward.op}' does not give{remedy}"
        )
    sharing = next(other for other, text in backward.grads.items() if text == output)
    if sharing != name:
        return f"'{output}' is the gradient of '{sharing}' and of '{name}'; give each its own"
    return None


def check_backward(
    spec: KernelSpec, backward: Backward, document: Document, names: Sequence[str], files: Files
) -> None:
    """Report where the backward of an op does not fit it, not what else is wrong with it.

    `names` are those of all kernels below the root. An op may answer its own gradients.
    """
    if spec.schema.written:
        what = (
            f"the op writes '{spec.schema.written[0]}', and PyTorch takes no backward of such ops"
        )
        document.report(_AT, "KP162", f"{what}; return what it writes, or remove [op.backward]")
        return
    if backward.op not in names:
        remedy = suggestion(backward.op, names) or f"; there are {', '.join(names)}"
        message = f"'{backward.op}' answers the gradients, and is not in kernels/{remedy}"
        document.report((*_AT, "op"), "KP160", message)
        return
    directory = Path(spec.directory).with_name(backward.op)
    shown = f"kernels/{backward.op}/kernel.toml"
    try:
        theirs = Document(directory / "kernel.toml", shown, KERNEL_MANIFEST, read_bytes=files.read)
    except PackError:
        return
    other = KernelReader(theirs, directory).read()
    if other is not None and theirs.sound:
        wrong = bind(spec.schema, backward, other.schema)[1]
        for path, message in (*wrong, *_dtype_problems(spec, backward, other)):
            document.report(path, "KP161", message)


def _dtype_problems(
    spec: KernelSpec, backward: Backward, other: KernelSpec
) -> Iterator[tuple[TomlPath, str]]:
    """Yield the paths of keys and messages for dtypes that [args] of both kernels give otherwise.

    Those that are axes are known at a call alone.
    """
    for name in backward.grads:
        dtype = _dtype(spec, name)
        if dtype is not None and not dtype.startswith(("float", "bfloat")):
            message = f"grads names '{name}', which is {dtype} in [args] and has no gradient"
            yield (*_AT, "grads", name), f"{message}; remove it"
    for arg in other.schema.args:
        text = backward.args.get(arg.name, arg.name)
        ours, theirs = _dtype(spec, text), _dtype(other, arg.name)
        if ours is not None and theirs is not None and ours != theirs:
            at = ("args", arg.name) if arg.name in backward.args else ()
            what = f"argument '{arg.name}' of '{backward.op}' is {theirs} in its [args]"
            yield (*_AT, *at), f"{what}, and '{text}' {ours} in those of the op; let both agree"


def _dtype(spec: KernelSpec, name: str) -> str | None:
    """Return the dtype of an argument, if it is one in all calls."""
    arg = next((arg for arg in spec.args if arg.name == name), None)
    found: set[Any] = {v.dtype and v.dtype.text for v in (() if arg is None else arg.variants)}
    (dtype,) = found if len(found) == 1 else (None,)
    return dtype if dtype in DTYPES else None
