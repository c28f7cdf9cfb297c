"""Manifests to specs: TOML in, frozen values out, every problem of a manifest in one run."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from packaging.specifiers import InvalidSpecifier, SpecifierSet

from kernelpkg.digest import digest_bytes
from kernelpkg.errors import PackError, Problem, suggestion
from kernelpkg.expr.language import Expr
from kernelpkg.files import Files, read_file
from kernelpkg.manifest import validate
from kernelpkg.manifest.decode import MISSING
from kernelpkg.manifest.document import Document
from kernelpkg.manifest.kernel import KernelReader, check_identifier, read_expr
from kernelpkg.manifest.keys import KERNEL_MANIFEST, PACK_MANIFEST
from kernelpkg.manifest.spec import KernelName, KernelSpec, PackSpec, Route
from kernelpkg.packs.casecheck import check_cases


def read_kernel(root: Path, name: str, files: Files | None = None) -> KernelSpec:
    """Read `kernels/<name>/kernel.toml` below a root, and check it against its Python files.

    `files` keeps what was read, for whoever runs it next. Raises PackError with every problem of
    the manifest and of the files that it names.
    """
    directory, shown = root / "kernels" / name, f"kernels/{name}/kernel.toml"
    if not directory.is_dir():
        others = kernel_names(root)
        remedy = suggestion(name, others) or f"; 'kernelpkg new {name}' writes one"
        message = f"kernel '{name}' is named by the pack, and is not there{remedy}"
        raise PackError(problems=(Problem(path=shown, code="KP602", message=message),))
    files = files or Files()
    document = Document(directory / "kernel.toml", shown, KERNEL_MANIFEST, read_bytes=files.read)
    reader = KernelReader(document, directory)
    spec = reader.read()
    validate.check_references(reader.references, directory, reader.schema, document, files)
    if spec is not None:
        validate.check_kernel(spec, document)
        if document.sound:
            check_cases(spec, document)
    if not document.sound:
        raise PackError(problems=document.problems())
    assert spec is not None
    return spec


def read_pack(
    root: Path, name: str, *, check: Callable[[str, str], None] = lambda *_: None
) -> PackSpec:
    """Read `manifests/<name>.toml` below a root; raises PackError with every problem of it.

    Kernels are named but not read: one that is broken or missing keeps no other from loading.
    `check` takes the path and the digest of what was read, before any of it counts.
    """
    shown = f"manifests/{name}.toml"

    def read_bytes(path: Path) -> bytes:
        content = read_file(path)
        check(shown, digest_bytes(content))
        return content

    document = Document(root / shown, shown, PACK_MANIFEST, read_bytes=read_bytes)
    spec = _read_pack(document, root, name)
    if not document.sound:
        raise PackError(problems=document.problems())
    return spec


def kernel_names(root: Path) -> tuple[str, ...]:
    """The directories of `kernels/` that hold a manifest, in alphabetical order.

    Raises PackError where `kernels/` cannot be read.
    """
    try:
        names = os.listdir(root / "kernels")
    except (FileNotFoundError, NotADirectoryError):
        return ()
    except OSError as error:
        message = f"directory cannot be read: {error.strerror}; correct its permissions"
        raise PackError(
            problems=(Problem(path="kernels", code="KP001", message=message),)
        ) from None
    shown = (name for name in names if not name.startswith("."))
    return tuple(sorted(name for name in shown if _holds_manifest(root / "kernels" / name)))


def _holds_manifest(directory: Path) -> bool:
    """Whether a directory has a manifest; one that cannot be looked into counts, to be told of."""
    try:
        os.stat(directory / "kernel.toml")
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return True


def _read_pack(document: Document, root: Path, name: str) -> PackSpec:
    get = document.get
    if get("pack", "name") not in (name, MISSING):
        document.report(
            ("pack", "name"),
            "KP101",
            f"pack is named '{get('pack', 'name')}', its file '{name}'; give both the same name",
        )
    if get("pack", "namespace") is not MISSING:
        check_identifier(document, ("pack", "namespace"), get("pack", "namespace"))
    kernels = _kernels(document, root)
    return PackSpec(
        name=name,
        path=document.shown,
        root=str(root),
        digest=document.digest,
        version=get("pack", "version"),
        namespace=get("pack", "namespace"),
        license=get("pack", "license"),
        kernels=tuple(KernelName(kernel) for kernel in kernels),
        platforms=get("platforms", "names"),
        variants=get("platforms", "variants"),
        models=get("models"),
        vllm_requires=_vllm_requires(document),
        vllm_axes=_vllm_axes(document, kernels),
        routes=_routes(document, kernels),
    )


def _kernels(document: Document, root: Path) -> tuple[str, ...]:
    at = ("pack", "kernels")
    wanted = document.get(*at)
    if wanted is MISSING:
        return ()
    kernels: tuple[str, ...] = kernel_names(root) if wanted == "*" else wanted
    known: set[str] = set()
    for place, kernel in enumerate(kernels):
        if kernel in known:
            document.report(
                (*at, place), "KP602", f"kernel '{kernel}' is named twice; name it once"
            )
        known.add(kernel)
    if not kernels:
        message = "the pack has no kernels; 'kernelpkg new NAME' writes one"
        document.report(at, "KP601", message)
    return kernels


def _vllm_requires(document: Document) -> str:
    text: Any = document.get("vllm", "requires")
    if text is MISSING:
        return ""
    try:
        SpecifierSet(text)
    except InvalidSpecifier:
        message = f"'{text}' is not a version specifier such as '>=0.33,<0.34'"
        document.report(("vllm", "requires"), "KP608", message)
    return str(text)


def _vllm_axes(
    document: Document, kernels: tuple[str, ...]
) -> Mapping[KernelName, Mapping[str, str]]:
    tables: Any = document.get("vllm", "axes")
    for kernel in {} if tables is MISSING else tables:
        if kernel not in kernels and kernels:
            remedy = suggestion(kernel, kernels) or f"; it has {', '.join(kernels)}"
            message = f"names axes of kernel '{kernel}', which the pack does not have{remedy}"
            document.report(("vllm", "axes", kernel), "KP603", message)
    return {} if tables is MISSING else tables


def _routes(document: Document, kernels: tuple[str, ...]) -> tuple[Route, ...]:
    tables = document.get("vllm", "routes")
    routes = []
    for target, route in ({} if tables is MISSING else tables).items():
        at = ("vllm", "routes", target)
        if route["op"] is not MISSING and route["op"] not in kernels and kernels:
            remedy = suggestion(route["op"], kernels) or f"; it has {', '.join(kernels)}"
            message = f"route '{target}' names op '{route['op']}', which the pack does not have"
            document.report((*at, "op"), "KP603", message + remedy)
        if route["capture_only"] is True and route["eager"]:
            message = (
                f"route '{target}' has conditions on eager calls, and takes none of them "
                "(capture_only); remove one of the two"
            )
            document.report((*at, "eager"), "KP609", message)
        routes.append(
            Route(
                target=target,
                op=route["op"],
                when=_conditions(document, (*at, "when"), route["when"]),
                eager=_conditions(document, (*at, "eager"), route["eager"]),
                capture_only=route["capture_only"],
            )
        )
    return tuple(routes)


def _conditions(document: Document, at: tuple[str | int, ...], texts: Any) -> tuple[Expr, ...]:
    """Read a list of expressions; those that are wrong are reported and left out."""
    given = () if texts is MISSING else texts
    exprs = [read_expr(document, (*at, place), text) for place, text in enumerate(given)]
    return tuple(expr for expr in exprs if expr is not None)


def problem_at(spec: KernelSpec, code: str, message: str, *at: str | int) -> Problem:
    """Return a problem of a key of a manifest that was read before."""
    document = Document(Path(spec.directory) / "kernel.toml", spec.path, KERNEL_MANIFEST)
    return Problem(path=spec.path, line=document.line(*at), code=code, message=message)
