"""The command `show`: one op whole, as its manifest, its configs and Helion have it."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click
from attrs import asdict

from kernelpkg.cli.console import FINE, ProgressBar, importing, tell
from kernelpkg.cli.options import ONE_PLATFORM, OP, Shared, command, only
from kernelpkg.configs.directories import platforms_of, tuned_platforms
from kernelpkg.configs.platforms import chosen_platforms, platform_of
from kernelpkg.errors import KernelpkgError, counted
from kernelpkg.manifest.cases import cases_of
from kernelpkg.manifest.keys import INTERPRET, USES
from kernelpkg.manifest.spec import KernelSpec, PackSpec, Properties, Rule
from kernelpkg.packs.find import chosen_kernels, open_pack
from kernelpkg.packs.read import read_kernel


@command(configs=True)
@OP
@click.option("--structure", is_flag=True, help="bind it with Helion, and say what it is made of")
@ONE_PLATFORM
def run(shared: Shared, op: str, platforms: tuple[str, ...], *, structure: bool) -> int:
    """Show an op."""
    pack = open_pack(shared.pack, shared.root, shared.configs, os.environ, shared.here)
    platform = only(platforms)
    chosen_platforms(pack, platforms, tuned_platforms(pack))
    (name,) = chosen_kernels(pack, [op])
    spec = read_kernel(Path(pack.root), name)
    document = _document(pack, spec)
    if structure:
        document["structure"] = _structure(pack, spec, platform or "nvidia_h200")
    tell(shared, document, _lines(document))
    return FINE


def _document(pack: PackSpec, spec: KernelSpec) -> dict[str, Any]:
    """Return what files say of an op."""
    rules = {rule.axis: rule for rule in spec.rules}
    return {
        "op": f"{pack.namespace}::{spec.name}",
        "version": spec.version,
        "summary": spec.summary,
        "schema": spec.schema.text,
        "source": str(spec.source),
        "reference": str(spec.reference or "none"),
        "fake_impl": str(spec.fake_impl),
        "backward": None if spec.backward is None else asdict(spec.backward),
        "helion": {
            "requires": spec.requires,
            "settings": dict(spec.settings),
            "default": None if spec.default is None else dict(spec.default),
            "specialize": list(spec.specialize),
        },
        "axes": [
            {
                "name": axis.name,
                "expression": axis.expr.text,
                "rule": None if axis.name not in rules else _rule(rules[axis.name]),
            }
            for axis in spec.axes
        ],
        "guard": [guard.text for guard in spec.guards],
        "miss": spec.miss,
        "cases": {
            use: len(cases_of(spec, use))
            for use in (*USES, INTERPRET)
            if use in USES or any(use in grid.use for grid in spec.grids)
        },
        "accuracy": {name: _accuracy(spec, name) for name in spec.accuracy},
        "properties": {name: _holding(wanted) for name, wanted in spec.properties.items()},
        "tuned_for": list(platforms_of(pack, spec.name)),
        "routes": [
            {
                "native": route.target,
                "when": [expr.text for expr in route.when],
                "eager": [expr.text for expr in route.eager],
                "capture_only": route.capture_only,
            }
            for route in pack.routes
            if route.op == spec.name
        ],
    }


def _rule(rule: Rule) -> str:
    """Return a rule in words of the manifest: what differs from a plain one in brackets."""
    plain = Rule(axis=rule.axis, match=rule.match)
    said = {
        name: value
        for name in ("distance", "max", "over", "under", "bounds", "inexact")
        if (value := getattr(rule, name)) != getattr(plain, name)
    }
    return rule.match + _bracketed(said)


def _accuracy(spec: KernelSpec, name: str) -> dict[str, Any]:
    """Return the bounds of an output that are not what they are without a word of the manifest."""
    found = spec.accuracy[name]
    bounds = {key: getattr(found, key) for key in ("steps", "equal", "rtol", "atol", "rounding")}
    return {key: value for key, value in bounds.items() if value not in (None, 0.0)}


def _holding(wanted: Properties) -> dict[str, Any]:
    """Return what holds of an output, as the manifest says it."""
    said = {
        "zeros": None if wanted.zeros is None else wanted.zeros.text,
        "within": wanted.within or None,
        "seed": wanted.seed,
        "holds": None if wanted.holds is None else str(wanted.holds),
    }
    return {key: value for key, value in said.items() if value is not None}


def _structure(pack: PackSpec, spec: KernelSpec, platform: str) -> list[dict[str, Any]]:
    """Bind the variants of an op; those that are made alike are one entry.

    Raises KernelpkgError where Helion is not there, or a variant does not bind.
    """
    with importing("--structure"):
        from kernelpkg.compile.bind import Binder, NoInputs, Target, Unbound
        from kernelpkg.compile.variants import known_cases, variants_of
    with ProgressBar("binding") as progress, contextlib.redirect_stdout(sys.stderr):
        binder, target = Binder(spec), Target.of(platform_of(pack, platform))
        variants = variants_of(spec, known_cases(spec))
        found: dict[str, dict[str, Any]] = {}
        for number, variant in enumerate(variants):
            progress.step(f"binding {spec.name}", number, len(variants))
            try:
                made = binder.bind(variant.largest, target).structure()
            except (Unbound, NoInputs) as error:
                text = f"kernelpkg: '{spec.name}' does not bind for {variant.largest}: {error}"
                raise KernelpkgError(f"{text}; 'kernelpkg test {spec.name}' says more") from None
            one = found.setdefault(repr(made), {"variants": [], **made})
            one["variants"].append(str(variant))
    return list(found.values())


def _lines(document: Mapping[str, Any]) -> Iterator[str]:
    """Yield an op for people."""
    yield f"{document['op']}, version {document['version']}: {document['summary']}"
    for label, values in _parts(document):
        for number, value in enumerate(values):
            yield f"{'' if number else label + ':':<11}{value}"


def _parts(document: Mapping[str, Any]) -> Iterator[tuple[str, list[str]]]:
    """Yield the labels of an op with what belongs to each, a line for each value."""
    helion = document["helion"]
    yield "schema", [document["schema"]]
    yield "source", [f"{document['source']}, reference {document['reference']}"]
    yield "fake_impl", [document["fake_impl"]]
    if document["backward"]:
        backward = document["backward"]
        known = ", ".join(f"{name} {text}" for name, text in backward["args"].items())
        yield (
            "backward",
            [
                f"{backward['op']} ({known})",
                *(f"gradient of {name}: its {text}" for name, text in backward["grads"].items()),
            ],
        )
    said = {name: helion[name] for name in ("settings", "default", "specialize") if helion[name]}
    texts = [f"; {name} {json.dumps(value)}" for name, value in said.items()]
    yield "helion", [helion["requires"] + "".join(texts)]
    width = max((len(axis["name"]) for axis in document["axes"]), default=0)
    yield (
        "axes",
        [
            f"{axis['name']:<{width}}  {axis['expression']}"
            + (f"  ({axis['rule']})" if axis["rule"] else "")
            for axis in document["axes"]
        ],
    )
    yield "guard", document["guard"]
    uses = {"tune": "to tune", "test": "to test", "bench": "to time"}
    yield "cases", [", ".join(f"{n} {uses[use]}" for use, n in document["cases"].items())]
    yield "accuracy", [f"{name}{_bracketed(how)}" for name, how in document["accuracy"].items()]
    yield "holds", [f"{n}{_bracketed(how)}" for n, how in document["properties"].items()]
    yield "tuned for", [", ".join(document["tuned_for"]) or "no platform"]
    yield (
        "routes",
        [
            route["native"]
            + "".join(f"\n{'':<11}  when {text}" for text in route["when"])
            + "".join(f"\n{'':<11}  eager when {text}" for text in route["eager"])
            + (f"\n{'':<11}  captured only" if route["capture_only"] else "")
            for route in document["routes"]
        ],
    )
    for one in document.get("structure", ()):
        yield "structure", list(_made_lines(one))


def _made_lines(one: Mapping[str, Any]) -> Iterator[str]:
    """Yield what the code of some variants is made of."""
    parts = [
        counted(one[name], name.removesuffix("s"))
        for name in ("blocks", "reductions", "loops", "loads", "stores", "atomics")
        if one[name]
    ]
    yield ", ".join(parts)
    yield "lists of a config: " + ", ".join(f"{name} {n}" for name, n in one["lists"].items())
    if one["tunables"]:
        yield "tunables: " + ", ".join(one["tunables"])
    if one["constants"]:
        yield "constants of the code: " + ", ".join(one["constants"])
    for variant in one["variants"]:
        yield f"for {variant}"


def _bracketed(said: Mapping[str, Any]) -> str:
    """Return settings in brackets, or nothing."""
    inside = ", ".join(f"{name} {value}" for name, value in said.items())
    return f" ({inside})" if inside else ""
