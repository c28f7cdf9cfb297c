"""Kernels that are taken from a file of Helion's run, once their references are written."""

from __future__ import annotations

from pathlib import Path

import pytest

from kernelpkg import cli
from kernelpkg.cli.new import new_kernel
from kernelpkg.from_helion.kernel import take_kernel

EXAMPLES = Path(__file__).parents[2] / "fixtures" / "helion_examples.py"
REFERENCES = {
    "two_pass": "torch.softmax(x.float(), -1).to(x.dtype)",
    "norm": (
        "((x.float() * (scale := torch.rsqrt(x.float().square().mean(-1, keepdim=True) + eps))"
        " * weight).to(x.dtype), scale)"
    ),
    "linear": (
        "torch.relu((x.float() @ w.float() + (0 if bias is None else bias)) * factor * 0.5)"
        ".to(x.dtype)"
    ),
    "scores": "(q.float() @ k.float().mT).reshape(-1, q.shape[-2], k.shape[-2])",
    "add": "x + y",
    "pick_rows": "table[places]",
    "scale_into": "out.copy_(x.float() * factor * 0.5)",
}


@pytest.fixture(scope="module")
def pack(tmp_path_factory):
    root = tmp_path_factory.mktemp("taken")
    for name in REFERENCES:
        new_kernel(root, name, make_pack=True, taken=take_kernel(f"{EXAMPLES}:{name}"))
    return root


def test_all_of_them_load_and_say_that_their_references_are_missing(pack, capsys):
    assert cli.main(["load", "--root", str(pack), "--smoke", "--device", "cpu"]) == 1
    printed = capsys.readouterr()
    assert f"{len(REFERENCES)} registered, 0 of {len(REFERENCES)} checks ok" in printed.out
    for name, line in zip(sorted(REFERENCES), printed.err.splitlines(), strict=True):
        assert line.startswith(f"kernels/{name}/host.py:")
        assert line.endswith(f"NotImplementedError: write the reference of {name}")


def test_with_references_all_of_them_agree(pack, capsys):
    for name, written in REFERENCES.items():
        path = pack / "kernels" / name / "host.py"
        stub = f'raise NotImplementedError("write the reference of {name}")'
        path.write_text(path.read_text().replace(stub, f"return {written}"))
    assert cli.main(["load", "--root", str(pack), "--smoke", "--device", "cpu"]) == 0
    assert f"{len(REFERENCES)} of {len(REFERENCES)} checks ok" in capsys.readouterr().out
