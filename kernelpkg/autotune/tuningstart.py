"""The start of tuning one op: its plan, its store, and what earlier runs left to be done."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from attrs import evolve

from kernelpkg.autotune.plan import TuningPlan, plan_tuning
from kernelpkg.autotune.results import shown_key
from kernelpkg.autotune.session import OpRun, TuningRequest, looked_into, unwritable
from kernelpkg.autotune.store import Conditions, open_store
from kernelpkg.configs.platforms import Platform
from kernelpkg.configs.search_path import ConfigDirectory
from kernelpkg.configs.selection import read_plan
from kernelpkg.configs.store import config_id
from kernelpkg.manifest.spec import KernelSpec, PackSpec

_PICKED: Final = "picked"
"""The notes of what the rules picked when the tuning of a case was first asked for."""

_FEW: Final = 5
"""How many cases a remark names."""

_SHORT: Final = 40
"""How long a fact may be to be shown; digests are longer."""


@contextlib.contextmanager
def open_op(
    pack: PackSpec,
    spec: KernelSpec,
    wanted: Mapping[str, Sequence[str]],
    request: TuningRequest,
    *,
    target: ConfigDirectory,
    here: Platform,
    conditions: Conditions,
    facts: Mapping[str, str],
) -> Iterator[OpRun]:
    """Plan the tuning of an op and open its store; no other process tunes it meanwhile.

    Results that an earlier run could not put into the config file any more are put there. Raises
    PackError for a file that is broken or cannot be written, before a GPU is used, and UsageError.
    """
    plan = plan_op(pack, spec, wanted, target=target, here=here)
    with open_store(target.path, target.shown, spec.name, here.name) as store:
        run = OpRun(
            pack=pack,
            target=target,
            platform=here.name,
            plan=plan,
            store=store,
            request=request,
            conditions=conditions,
            facts=facts,
            before=0,
        )
        _check_writable(run)
        if request.again:
            for under in (conditions, run.shared):
                store.forget(under, [planned.key for planned in plan.cases])
        run.write()
        # What the results of earlier runs changed is what the rules pick now.
        plan = _as_begun(plan_op(pack, spec, wanted, target=target, here=here), run)
        yield evolve(run, plan=plan, before=len(run.records()))


def _as_begun(plan: TuningPlan, run: OpRun) -> TuningPlan:
    """Return a plan whose old configs are those from before the first run that asked for them.

    Else the cases that were tuned before an interruption would lend the others their configs, and
    a run that was interrupted would not end like one that was not. A config that the file has for
    a case itself is not lent.
    """
    noted = run.store.notes(run.conditions, _PICKED)
    lent = [case for case in plan.cases if not case.exact]
    new = [case for case in lent if config_id(case.key) not in noted]
    run.store.note(run.conditions, _PICKED, [(case.key, case.old) for case in new])
    return evolve(
        plan,
        cases=tuple(
            case if case.exact else evolve(case, old=noted.get(config_id(case.key), case.old))
            for case in plan.cases
        ),
    )


def plan_op(
    pack: PackSpec,
    spec: KernelSpec,
    wanted: Mapping[str, Sequence[str]],
    *,
    target: ConfigDirectory,
    here: Platform,
) -> TuningPlan:
    """Return the cases of an op to tune, with what calls get now that the target is looked into."""
    return plan_tuning(spec, read_plan(looked_into(pack, target), spec, here), wanted)


def outdated(run: OpRun) -> str | None:
    """Say which results of earlier runs do not count, and what changed since, or return None."""
    others = run.store.outdated(run.conditions)
    if run.before or not others:
        return None
    latest = others[0]
    changes = [
        f"{name} was {latest.get(name, 'unknown')}, is {value}" if len(value) < _SHORT else name
        for name, value in run.conditions.items()
        if latest.get(name) != value
    ]
    return f"{run.spec.name}: results of earlier runs do not count, changed: {'; '.join(changes)}"


def edited(run: OpRun) -> str | None:
    """Say which cases were edited since they were tuned, or return None."""
    found = [shown_key(record.key) for record in run.edited()]
    if not found:
        return None
    more = f" and {len(found) - _FEW} more" if len(found) > _FEW else ""
    return (
        f"{run.shown}: edited since it was tuned, and left so: {'; '.join(found[:_FEW])}{more}; "
        "--again tunes these cases anew"
    )


def _check_writable(run: OpRun) -> None:
    """Raise PackError where the config file could not be written in the end."""
    above = run.path.parent
    while not above.exists():
        above = above.parent
    probe = above / f".{run.platform}.probe"
    try:
        probe.touch()
        probe.unlink(missing_ok=True)  # another op's tuner may have looked at the same moment
        if run.path.is_dir():
            raise IsADirectoryError(21, "Is a directory")
    except OSError as error:
        raise unwritable(run.shown, error) from None
