"""Arguments without values, in the layouts that the calls of a case may have."""

from pathlib import Path

import pytest

from kernelpkg.bench.stand_ins import layouts_of, make_stand_ins
from kernelpkg.manifest.cases import Case, cases_of
from kernelpkg.packs.read import read_kernel

SPEC = read_kernel(Path(__file__).parents[3], "per_token_group_fp8_quant")
SCALES = 2


def case(**changes):
    values = {**cases_of(SPEC, "tune")[0].values, "hidden_size": 4096, **changes}
    return Case(values=values, use=(), grid=0)


def scales(**changes):
    """The strides of the scales, [T, 32], in each layout."""
    wanted = case(**changes)
    return [
        make_stand_ins(SPEC, wanted, device="meta", dense=dense)[SCALES].stride()
        for dense in layouts_of(SPEC, wanted)
    ]


@pytest.mark.parametrize(
    ("tokens", "column_major", "expected"),
    [
        (1, True, [(1, 4), (1, 1)]),
        (3, True, [(1, 4), (1, 3)]),
        (8, True, [(1, 8)]),
        (1, False, [(32, 1), (1, 1)]),
        (3, False, [(32, 1)]),
    ],
)
def test_strides_that_may_be_anything_are_padded_and_then_dense(tokens, column_major, expected):
    """The transpose of a row-major [32, 1] has strides of 1 alone, as vLLM's scales of a token."""
    assert scales(num_tokens=tokens, column_major=column_major) == expected
