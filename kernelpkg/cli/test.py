"""The command `test`: a smoke check of every op, and levels 0 and 1 of `check`, in one run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kernelpkg.cli.check import check_pack
from kernelpkg.cli.console import FINE, FOUND, complain, print_json, say
from kernelpkg.cli.load import load_pack, print_report, tell_broken
from kernelpkg.cli.options import DEVICE, JOBS, OPS, Shared, command
from kernelpkg.errors import counted

if TYPE_CHECKING:
    from kernelpkg.runtime.torch_ops import Device


@command(configs=True)
@OPS
@DEVICE
@JOBS
def run(shared: Shared, ops: tuple[str, ...], device: Device, jobs: int | None) -> int:
    """Test; 0 where nothing is wrong."""
    early = tell_broken(shared, ops)
    _, checked = check_pack(shared, ops, level=1, jobs=jobs)
    loaded = load_pack(shared, device, smoke=True, ops=ops)
    if shared.as_json:
        print_json({"load": loaded.to_json(), "check": checked.to_json()})
    else:
        told = (*checked.findings, *loaded.notes, *loaded.failures())
        complain({str(one): one for one in told if one not in early}.values())
        if loaded.kernels:
            print_report(loaded)
        errors = sum(finding.severity == "error" for finding in checked.findings)
        found = f"{counted(errors, 'error')}, {len(checked.findings) - errors} unverified"
        say(f"levels 0 and 1: {found}; {checked.looked_at()}")
    return FINE if loaded.ok and checked.ok else FOUND
