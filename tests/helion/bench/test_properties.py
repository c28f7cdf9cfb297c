"""Kernels without a reference: what holds of their results, and what is said where it does not."""

# ruff: noqa: E501  # tables of cases have a line each

from __future__ import annotations

import re

import pytest
import torch
from attrs import evolve

from kernelpkg.bench.properties import broken_properties
from kernelpkg.bench.reference import differences, disagreement
from kernelpkg.errors import PackError
from kernelpkg.expr.language import parse_expr
from kernelpkg.manifest.cases import Case
from kernelpkg.manifest.opschema import parse_schema
from kernelpkg.manifest.spec import Accuracy, Properties
from kernelpkg.packs.read import read_kernel
from kernelpkg.runtime.load import load
from kernelpkg.vllm.vendor.op_file import write_op

KERNEL, HOST = "kernels/dropout/kernel.py", "kernels/dropout/host.py"


@pytest.fixture
def random(copied):
    return copied("random")


def checked(pack):
    (kernel,) = load("random", root=pack.root, smoke=True).kernels
    return kernel.check


def test_a_random_kernel_needs_no_reference(random):
    """Its smoke check is that of its properties, and each case passes."""
    assert checked(random) == "ok"


@pytest.mark.parametrize(
    ("edit", "problem"),
    [
        ((KERNEL, ">= p", ">= 0.5 * p"),
         r"return: 1\d\.\d\d% of 2304 elements are zero; 25.00% ± 4.51% should be"),
        ((KERNEL, "seed=seed", "seed=3"),
         r"return is the same for 'seed' and 'seed' \+ 1; make it depend on the seed"),
        ((KERNEL, "input[tile] / (1 - p)", "input[tile]"),
         r"return\[0, \d+\] is \S+ \(\d+ of 2304 elements\), which 'host.py:scaled' says is wrong"),
        ((KERNEL, "hl.tile([rows, width])", "hl.tile([rows, width - 1])"),
         r"return\[0, 95\] is nan \(24 of 2304 elements\), but no argument has a NaN; write each element"),
        ((HOST, "| torch.isclose(output, input / (1 - p))", "* input"),
         r"return: 'host.py:scaled' returns torch.float32 \(24, 96\); return one bool, or one for each element"),
    ],
    ids=["share", "seed", "values", "not-written", "no-flag"],
)  # fmt: skip
def test_what_does_not_hold_is_found(random, edit, problem):
    random.edit(*edit)
    found = checked(random)
    assert re.search(rf"case height=24, width=96, p=0.25: .*{problem}", found), found


def test_results_of_equal_seeds_are_equal(random):
    """A kernel with another source of chance gives others at each call."""
    spec = read_kernel(random.root, "dropout")

    def unseeded(input, p, seed):
        return torch.where(torch.rand_like(input) >= p, input / (1 - p), 0.0)

    case = Case(values={"height": 24, "width": 96, "p": 0.25}, use=(), grid=0)
    found = disagreement(spec, unseeded, case, device="cpu")
    assert re.fullmatch(
        r"return\[0, \d+\] is \S+ \(\d+ of 2304 elements\), and differs in a second, equal call",
        found,
    )


def _said(spec, wanted, output, **values):
    """Return what is said of an output of which a manifest wants so much."""
    case = Case(values=values, use=(), grid=0)
    spec = evolve(spec, properties={"return": wanted})
    got = {"return": output}
    return [*broken_properties(spec, case, (), got, lambda *_: got, None)]


@pytest.mark.parametrize(
    ("zeros", "of", "within", "wrong"),
    [(30, 100, 0.0, 0), (48, 100, 0.0, 1), (48, 100, 0.03, 0), (0, 3, 0.0, 0), (3, 3, 0.0, 0), (0, 0, 0.0, 0)],
)  # fmt: skip
def test_a_share_may_be_what_chance_makes_it(random, zeros, of, within, wrong):
    """Of few elements any share is chance's; `within` is beside that."""
    spec = read_kernel(random.root, "dropout")
    output = torch.arange(of).ge(zeros).to(torch.float8_e4m3fn)
    wanted = Properties(zeros=parse_expr("p"), within=within)
    assert len(_said(spec, wanted, output, p=0.25)) == wrong


def test_a_share_of_none_or_all_is_exact(random):
    """Chance has no part in it, and such results are equal for all seeds."""
    spec, wanted = read_kernel(random.root, "dropout"), Properties(zeros=parse_expr("p"))
    one = torch.ones(300)
    one[7] = 0
    (said,) = _said(spec, wanted, one, p=0)
    assert said == "return: 0.33% of 300 elements are zero; 0.00% ± 0.00% should be"
    seeded = Properties(zeros=parse_expr("p"), seed="seed")
    assert _said(spec, seeded, torch.ones(300), p=0) == []
    assert len(_said(spec, Properties(seed="seed"), torch.ones(300))) == 1
    assert _said(spec, Properties(seed="seed"), torch.ones(200)) == []


def test_other_results_are_held_against_the_reference(random):
    """An op may write both kinds; what has properties may differ from the reference's."""
    schema = parse_schema("(Tensor input, Tensor(a!) twice, int seed) -> (Tensor, Tensor)")
    spec = evolve(
        read_kernel(random.root, "dropout"),
        schema=schema,
        accuracy={"twice": Accuracy()},
        properties={"return": Properties(seed="seed")},
    )
    ones, zeros = torch.ones(2), torch.zeros(2)
    want = ((ones, ones, 0), (ones, ones))
    assert differences(spec, ((ones, ones, 0), (zeros, zeros)), want) == []
    (said,) = differences(spec, ((ones, zeros, 0), (zeros, zeros)), want)
    assert said.startswith("twice[0] is 0, the reference's 1")
    spec = evolve(
        spec,
        accuracy={"twice": Accuracy(), "return": Accuracy()},
        properties={"return[1]": Properties(seed="seed")},
    )
    (said,) = differences(spec, ((ones, ones, 0), (zeros, zeros)), want)
    assert said.startswith("return[0][0] is 0, the reference's 1")


def test_a_kernel_with_random_results_is_not_vendored(random):
    with pytest.raises(PackError) as caught:
        write_op(read_kernel(random.root, "dropout"), "a pack", "Apache-2.0", "shared")
    assert str(caught.value) == (
        "kernels/dropout/kernel.toml: KP813 kernel 'dropout': what has [properties] would be compared with a baseline by vLLM's autotuner; leave it out of the pack that is vendored"
    )
