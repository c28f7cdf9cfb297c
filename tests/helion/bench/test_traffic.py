"""How many bytes a call has to move, by what its reference does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from kernelpkg.bench.traffic import Traffic, traffic_of
from kernelpkg.manifest.opschema import parse_schema


def of(schema: str, reference: Callable[..., Any] | None, *args: Any) -> tuple[int, int]:
    parsed = parse_schema(schema)
    result = None if reference is None else reference(*args)
    again = None if reference is None else lambda: reference(*args)
    found = traffic_of(parsed, args, result, again)
    return found.read, found.written


X = torch.ones(64)  # 256 bytes


def test_inputs_are_read_and_results_written():
    assert of("(Tensor x) -> Tensor", lambda x: x.to(torch.bfloat16) * 2, X) == (256, 128)


def test_what_is_read_again_and_again_counts_once():
    assert of("(Tensor x) -> Tensor", lambda x: x / x.abs().max() + x, X) == (256, 256)


def test_of_a_table_the_rows_that_are_picked_count():
    table, rows = torch.ones(1000, 4), torch.tensor([3, 5])
    schema = "(Tensor table, Tensor rows) -> Tensor"
    for pick in (lambda t, r: t[r], lambda t, r: t.index_select(0, r)):
        assert of(schema, pick, table, rows) == (2 * 16 + 16, 2 * 16)


def test_of_a_view_its_own_elements_count():
    assert of("(Tensor x) -> Tensor", lambda x: x.view(2, 32)[:, :8].sum(1), X) == (64, 8)


@pytest.mark.parametrize(
    ("write", "moved"),
    [
        (lambda out, x: out.copy_(x), (256, 256)),
        (lambda out, x: out.add_(x), (512, 256)),
        (lambda out, x: torch.mul(x, 2, out=out), (256, 256)),
        (lambda out, x: out[8:16].copy_(x[:8]), (32, 32)),
        (lambda out, x: out.index_put_((torch.tensor([1, 2]),), x[:2]), (8, 8)),
        (lambda out, x: out.zero_().add_(x), (512, 256)),
    ],
    ids=["whole", "added", "out", "part", "rows", "twice"],
)
def test_what_is_written_in_place_is_read_where_it_counts(write, moved):
    def reference(*args: torch.Tensor) -> None:
        write(*args)

    args = (torch.ones(64), torch.ones(64))
    assert of("(Tensor(a!) out, Tensor x) -> ()", reference, *args) == moved


def test_without_a_reference_what_is_not_written_is_read():
    args = (torch.ones(8), X, None, 3)
    assert of("(Tensor(a!) out, Tensor x, Tensor? y, int n) -> ()", None, *args) == (256, 32)


def test_arguments_in_the_same_memory_count_once():
    assert of("(Tensor x, Tensor y) -> Tensor", lambda x, y: x + y, X, X) == (256, 256)
    halves = X.view(2, 32)
    assert of("(Tensor x, Tensor y) -> Tensor", torch.dot, halves[0], halves[1]) == (256, 4)


def test_both_together():
    assert Traffic(read=3, written=4).moved == 7
