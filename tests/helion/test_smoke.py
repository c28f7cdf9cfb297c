"""The smoke check finds mistakes: the softmax of the README, with one each."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import kernelpkg

README = Path(__file__).parents[2] / "README.md"

MUTANTS = {
    "as it is": ("out", "out"),
    "no division": ("(x / torch.sum(x, dim=-1, keepdim=True))", "x"),
    "constant": ("(x / torch.sum(x, dim=-1, keepdim=True))", "torch.ones_like(x)"),
    "sum over the rows": ("torch.sum(x, dim=-1", "torch.sum(x, dim=0"),
    "first row only": ("hl.tile(input.size(0))", "hl.tile(1)"),
    "no exponential": ("torch.exp(x - ", "(x - "),
}


@pytest.mark.parametrize("mutant", list(MUTANTS))
def test_a_wrong_softmax_is_found(mutant: str, tmp_path: Path) -> None:
    """Each mistake fails the check that `load --smoke` makes; the kernel as it is passes."""
    files = dict(
        re.findall(
            r"^`my_kernels/(kernels/[^`\n]+)`\n\n```\w+\n(.*?)^```$",
            README.read_text(),
            re.DOTALL | re.MULTILINE,
        )
    )
    assert set(files) == {
        f"kernels/softmax/{name}" for name in ("kernel.py", "host.py", "kernel.toml")
    }
    old, new = MUTANTS[mutant]
    assert old in files["kernels/softmax/kernel.py"]
    files["kernels/softmax/kernel.py"] = files["kernels/softmax/kernel.py"].replace(old, new)
    files["manifests/mutants.toml"] = (
        'edition = 1\n[pack]\nname = "mutants"\nversion = "1"\nnamespace = "mutants"\n'
        'license = "Apache-2.0"\nkernels = "*"\n'
    )
    for file, text in files.items():
        path = tmp_path / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    try:
        (report,) = kernelpkg.load(root=tmp_path, device="cpu", smoke=True).kernels
    finally:
        kernelpkg.unload("mutants::softmax")
    assert (report.check == "ok") is (mutant == "as it is"), report
