"""What the inputs of a case take, from the manifest alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from kernelpkg.manifest.cases import Case, CaseProblem, cases_of
from kernelpkg.manifest.casesize import case_bytes, case_elements, check_bytes, shown_bytes, sizes
from kernelpkg.packs.read import read_kernel

ROOT = Path(__file__).parents[2]


def changed(case: Case, **values: object) -> Case:
    return Case(values={**case.values, **values}, use=case.use, grid=case.grid)  # type: ignore[dict-item]


def test_sizes_by_hand():
    """Shapes, strides that are padded, dtypes of one to four bytes, an argument that is absent."""
    spec = read_kernel(ROOT, "rms_norm_per_block_quant")
    case = changed(
        cases_of(spec, "tune")[0],
        num_tokens=5,
        hidden_size=640,
        has_residual=False,
        is_scale_transposed=True,
    )
    found = {size.name: (size.elements, size.bytes) for size in sizes(spec, case)}
    assert found == {
        "result": (3200, 3200),  # FP8
        "input": (3200, 6400),  # bfloat16
        "weight": (640, 1280),
        "scale": (25, (1 + 4 + 4 * 8) * 4),  # float32, strides (1, 8): 5 padded to 8
        "scale_ub": (1, 4),
    }
    assert case_bytes(spec, case) == 3200 + 6400 + 1280 + 148 + 4
    assert case_elements(spec, case) == 3200 + 3200 + 640 + 25 + 1
    assert check_bytes(spec, case) == 2 * case_bytes(spec, case) + 72 * 3200


def test_nothing_is_allocated():
    """A case beyond all memory has a size as any other."""
    spec = read_kernel(ROOT, "silu_mul_fp8")
    case = changed(cases_of(spec, "tune")[0], num_tokens=1 << 50)
    assert case_bytes(spec, case) == (1 << 50) * 2 * 2048 * 2 + 4


def test_an_empty_tensor_takes_nothing():
    spec = read_kernel(ROOT, "silu_mul_fp8")
    assert case_bytes(spec, changed(cases_of(spec, "tune")[0], num_tokens=0)) == 4


@pytest.mark.parametrize(
    ("values", "message"),
    [
        pytest.param({"hidden_size": -1}, "argument 'input' would have shape [1, -1]", id="below"),
        pytest.param({"group_size": 0}, "argument 'output_s': divides by zero", id="by-zero"),
        pytest.param(
            {"hidden_size": 5.5}, "argument 'input' would have shape [1, 5.5]", id="fraction"
        ),
        pytest.param({"hidden_size": "x"}, "argument 'input' would have shape [1, 'x']", id="text"),
    ],
)
def test_what_cannot_be_made(values, message):
    spec = read_kernel(ROOT, "per_token_group_fp8_quant")
    case = changed(cases_of(spec, "tune")[0], **values)
    with pytest.raises(CaseProblem) as caught:
        case_bytes(spec, case)
    assert (caught.value.code, str(caught.value)) == ("KP133", f"case {case}: {message}")


@pytest.mark.parametrize(
    ("count", "text"),
    [
        pytest.param(0, "0 bytes", id="none"),
        pytest.param(1023, "1023 bytes", id="bytes"),
        pytest.param(1536, "1.5 KiB", id="kib"),
        pytest.param(27 * 2**30, "27.0 GiB", id="gib"),
        pytest.param(2**50, "1024.0 TiB", id="tib"),
    ],
)
def test_bytes_as_people_read_them(count, text):
    assert shown_bytes(count) == text
