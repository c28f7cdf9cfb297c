"""The blocks of a picker, one for each rule, as text; that they are right is a property."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from attrs import evolve

from kernelpkg.expr.language import parse_expr
from kernelpkg.manifest.opschema import parse_schema
from kernelpkg.manifest.spec import Axis, Rule
from kernelpkg.packs.read import read_kernel
from kernelpkg.vllm.vendor.exprcode import axis_codes
from kernelpkg.vllm.vendor.oprules import listed, narrowing, words

BASE = read_kernel(Path(__file__).parents[2] / "golden" / "good", "x")
SCHEMA = parse_schema("(Tensor(a!) out, int n, int? m, bool flag) -> ()")


def blocks(*rules):
    axes = tuple(Axis(name=name, expr=parse_expr(name)) for name in ("n", "m", "flag"))
    spec = evolve(BASE, schema=SCHEMA, axes=axes, rules=rules)
    names = {"n": "n_", "m": "m", "flag": "flag"}
    return list(narrowing(spec, axis_codes(spec, names), names, ["key"]))


TUNED = "    keys = [key for key in config_keys if key]"
VALUES = '    values = {key["n"] for key in keys}'
KEPT = '    keys = [key for key in keys if key["n"] == best]'

RULES = {
    "nearest": (
        Rule(axis="n", match="nearest"),
        [
            "    # n: the nearest, of two equally near the smaller.",
            VALUES,
            "    best = min(values, key=lambda n: (abs(n - n_), n), default=None)",
            KEPT,
        ],
    ),
    "nearest within a bound": (
        Rule(axis="n", match="nearest", max=0.25),
        [
            "    # n: the nearest, within 25% of the call's, of two equally near the smaller.",
            "    values = {",
            (
                '        key["n"] for key in keys if abs(key["n"] - n_) <= Fraction("0.25") * '
                "abs(n_)"
            ),
            "    }",
            "    best = min(values, key=lambda n: (abs(n - n_), n), default=None)",
            KEPT,
        ],
    ),
    "nearest by ratio": (
        Rule(axis="n", match="nearest", distance="log"),
        [
            "    # n: the nearest, by ratio, of two equally near the smaller.",
            '    values = {key["n"] for key in keys if min(key["n"], n_) > 0}',
            "    best = min(",
            "        values, key=lambda n: (Fraction(max(n, n_), min(n, n_)), n), default=None",
            "    )",
            KEPT,
        ],
    ),
    "ceil": (
        Rule(axis="n", match="ceil"),
        [
            "    # n: the smallest not below the call's, else the largest.",
            VALUES,
            "    best = min(values, key=lambda n: (n < n_, abs(n - n_)), default=None)",
            KEPT,
        ],
    ),
    "ceil, else a miss": (
        Rule(axis="n", match="ceil", over="miss"),
        [
            "    # n: the smallest not below the call's.",
            '    values = {key["n"] for key in keys if key["n"] >= n_}',
            "    best = min(values, default=None)",
            KEPT,
        ],
    ),
    "floor": (
        Rule(axis="n", match="floor"),
        [
            "    # n: the largest not above the call's, else the smallest.",
            VALUES,
            "    best = min(values, key=lambda n: (n > n_, abs(n - n_)), default=None)",
            KEPT,
        ],
    ),
    "floor, else a miss": (
        Rule(axis="n", match="floor", under="miss"),
        [
            "    # n: the largest not above the call's.",
            '    values = {key["n"] for key in keys if key["n"] <= n_}',
            "    best = max(values, default=None)",
            KEPT,
        ],
    ),
    "pow2": (
        Rule(axis="n", match="pow2"),
        [
            (
                "    # n: the call's, rounded up to a power of two, but no more than the largest "
                "power."
            ),
            "    power = 1 << max(n_ - 1, 0).bit_length()",
            "    values = {",
            '        key["n"] for key in keys if key["n"] > 0 and key["n"] & (key["n"] - 1) == 0',
            "    }",
            "    best = min(power, max(values, default=power))",
            KEPT,
        ],
    ),
    "pow2, else a miss": (
        Rule(axis="n", match="pow2", over="miss"),
        [
            "    # n: the call's, rounded up to a power of two.",
            "    power = 1 << max(n_ - 1, 0).bit_length()",
            '    keys = [key for key in keys if key["n"] == power]',
        ],
    ),
    "ranges": (
        Rule(axis="n", match="ranges", bounds=(32, 128)),
        [
            (
                "    # n: of the call's range (they end at 32, 128) the smallest not below it, "
                "else the"
            ),
            "    # largest.",
            "    bounds = (32, 128)",
            "    home = bisect_left(bounds, n_)",
            '    values = {key["n"] for key in keys if bisect_left(bounds, key["n"]) == home}',
            "    best = min(values, key=lambda n: (n < n_, abs(n - n_)), default=None)",
            KEPT,
        ],
    ),
    "an axis that may be absent": (
        Rule(axis="m", match="floor", under="miss"),
        [
            "    # m: the largest not above the call's.",
            "    if m is None:",
            '        keys = [key for key in keys if key["m"] is None]',
            "    else:",
            '        keys = [key for key in keys if key["m"] is not None]',
            '        values = {key["m"] for key in keys if key["m"] <= m}',
            "        best = max(values, default=None)",
            '        keys = [key for key in keys if key["m"] == best]',
        ],
    ),
}


@pytest.mark.parametrize(("rule", "want"), RULES.values(), ids=RULES)
def test_blocks_say_what_they_do(rule, want):
    assert blocks(rule) == [TUNED, *want]


def test_equal_axes_share_a_block():
    """Also flags under any rule, which have to be equal; ignored axes have none."""
    rules = [
        Rule(axis="flag", match="ceil"),
        Rule(axis="m", match="ignore"),
        Rule(axis="n", match="exact"),
    ]
    assert blocks(*rules) == [
        "    keys = [",
        '        key for key in config_keys if key and key["flag"] == flag and key["n"] == n_',
        "    ]",
    ]
    code = axis_codes(
        evolve(BASE, schema=SCHEMA, axes=(Axis(name="flag", expr=parse_expr("flag")),)), {}
    )["flag"]
    assert words(rules[0], code) == "the same"
    assert words(rules[1], code) == "any; of what is left, the smallest"


def test_blocks_are_laid_out_as_ruff_does():
    """Its formatter changes none of them."""
    text = "\n".join(["def f():", *(line for rule, _ in RULES.values() for line in blocks(rule))])
    ruff = [sys.executable, "-m", "ruff", "format", "--isolated", "--line-length", "88", "-"]
    done = subprocess.run(ruff, input=f"{text}\n", capture_output=True, text=True, check=True)
    assert done.stdout == f"{text}\n"


def test_long_conditions_have_lines_of_their_own():
    tests = [f'key["{"axis" * 5}{n}"] == {"axis" * 5}{n}' for n in (1, 2)]
    assert list(listed("keys", "[]", "key", "keys", tests)) == [
        "    keys = [",
        "        key",
        "        for key in keys",
        f"        if {tests[0]}",
        f"        and {tests[1]}",
        "    ]",
    ]
