"""The tuning of one op: its jobs, what became of them, its saved results and config file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Final, Literal

from attrs import evolve, frozen

from kernelpkg.autotune import choose, results
from kernelpkg.autotune.choose import MARGIN, Trial, judge
from kernelpkg.autotune.plan import PlannedCase, Tuned, TuningPlan
from kernelpkg.autotune.results import OpResults
from kernelpkg.autotune.saved_results import Conditions, SavedResults, TuningRecord
from kernelpkg.configs import directories
from kernelpkg.configs import store as config_store
from kernelpkg.configs.directories import ConfigDirectory
from kernelpkg.configs.match import identity
from kernelpkg.configs.store import ConfigFile, config_id
from kernelpkg.errors import PackError, pack_error, parameter
from kernelpkg.jobs.pool import Job, JobOutcome
from kernelpkg.manifest.helion_config import Config, tunables_of
from kernelpkg.manifest.spec import KernelSpec, PackSpec, Scalar

Effort = Literal["none", "quick", "full"]

SEARCHED: Final = "searched"
"""The notes of what searches for a portfolio found."""

WRITTEN: Final = "written"
"""The notes of the configs that were put into the config file."""

TIMED: Final = "timed"
"""The notes of the times of a portfolio's configs."""


@frozen(kw_only=True)
class TuningRequest:
    """How cases are tuned. `budget` and `case_timeout` are seconds for one case.

    `margin` is by how much a config must be faster than the one it replaces. With a `portfolio` of
    so many, only as many cases are searched, and all get one of the configs found: few different
    ones, each `within` a share of its case's best time. `again` drops earlier results. `sharing`
    is how many devices compile on the cores of one host.
    """

    effort: Effort = "quick"
    budget: int | None = None
    case_timeout: float
    margin: float = MARGIN
    portfolio: int | None = None
    within: float = 0.02
    again: bool = False
    sharing: int = 1


@frozen(kw_only=True, eq=False)
class OpRun:
    """One op while it is tuned; made by `run.open_op`."""

    pack: PackSpec
    target: ConfigDirectory
    platform: str
    plan: TuningPlan
    saved_results: SavedResults
    request: TuningRequest
    conditions: Conditions
    facts: Mapping[str, str]
    before: int

    @property
    def spec(self) -> KernelSpec:
        """The kernel of the op."""
        return self.plan.spec

    @property
    def shown(self) -> str:
        """The config file, as messages name it."""
        return f"{self.target.shown}/{self.spec.name}/{self.platform}.json"

    @property
    def path(self) -> Path:
        """The config file."""
        return self.target.path / self.spec.name / f"{self.platform}.json"

    @property
    def shared(self) -> Conditions:
        """What the notes of a portfolio hold for: those of N cases serve one of more."""
        return {**self.conditions, "effort": f"{self.request.effort}, portfolio"}

    def records(self) -> tuple[TuningRecord, ...]:
        """Return the results of the cases that were asked for, in the order of the plan."""
        found = {config_id(r.key): r for r in self.saved_results.records(self.conditions)}
        keys = [config_id(planned.key) for planned in self.plan.cases]
        return tuple(found[key] for key in keys if key in found)

    def pending(self) -> list[PlannedCase]:
        """Return the cases that have no result."""
        done = {config_id(record.key) for record in self.records()}
        return [planned for planned in self.plan.cases if config_id(planned.key) not in done]

    def searches(self) -> list[PlannedCase]:
        """Return the cases whose search is still to be done."""
        pending = self.pending()
        if self.request.portfolio is None or not pending:
            return pending
        done = self.saved_results.notes(self.shared, SEARCHED)
        return [case for case in self._representatives if config_id(case.key) not in done]

    def timings(self) -> list[PlannedCase]:
        """Return the cases to time a portfolio's configs on, once its searches are done."""
        if self.request.portfolio is None or self.searches():
            return []
        wanted = set(map(config_id, self.found()))
        done = self.saved_results.notes(self.shared, TIMED)
        return [
            planned
            for planned in self.pending()
            if (note := done.get(config_id(planned.key))) is None or wanted - set(note["tried"])
        ]

    @cached_property
    def _representatives(self) -> tuple[PlannedCase, ...]:
        """The cases that stand for all in a portfolio."""
        exact = [rule.axis for rule in self.spec.rules if rule.match == "exact"]
        sizes = [axis for axis in self.spec.key_axes if axis not in exact]
        cases = {config_id(planned.key): planned for planned in self.plan.cases}

        def values(key: str, axes: Sequence[str]) -> list[Scalar]:
            return [cases[key].key[axis] for axis in axes]

        chosen = choose.representatives(
            cases,
            self.request.portfolio or 0,
            variant=lambda key: tuple(map(identity, values(key, exact))),
            sizes=lambda key: [
                float(value) if isinstance(value, int | float) else 0.0
                for value in values(key, sizes)
            ],
        )
        return tuple(cases[key] for key in chosen)

    def found(self) -> tuple[Config, ...]:
        """Return the configs that the searches for a portfolio found, each once."""
        notes = self.saved_results.notes(self.shared, SEARCHED)
        known = {config_id(config): config for note in notes.values() for config in note["found"]}
        return tuple(known[text] for text in sorted(known))

    def job(self, kind: str, planned: PlannedCase) -> Job:
        """Return the job that searches a case, or times a portfolio on it; made when it is due."""
        # A portfolio's configs reach the file together, those of searches one after the other.
        single = self.plan.single(planned, [planned] if kind == SEARCHED else self.plan.cases)
        payload: dict[str, Any] = {
            "root": self.pack.root,
            "kernel": self.spec.name,
            "kind": kind,
            "case": dict(planned.case.values),
            "beside": None if planned.beside is None else dict(planned.beside.values),
            "single": None if single is None else dict(single.values),
            "old": None if planned.old is None else dict(planned.old),
        }
        if kind == SEARCHED:
            payload |= {
                "seeds": [dict(config) for config in self.plan.seeds(planned, self._tuned())],
                "effort": self.request.effort,
                "budget": self.request.budget,
                "sharing": self.request.sharing,
            }
        else:
            payload["configs"] = [dict(config) for config in self.found()]
        text = f"{self.spec.name}/{kind}/{config_id(planned.key)}"
        return Job(id=text, payload=payload, timeout=self.request.case_timeout)

    def _tuned(self) -> Iterator[Tuned]:
        """Yield what is tuned by now: by this run, by earlier ones, and in the config file."""
        own = self.plan.picks.own()
        if own is not None:
            for key, config in zip(own.compiled.keys, own.compiled.configs, strict=True):
                yield Tuned(key=key, config=config)
        for record in self.saved_results.records(self.conditions):
            if record.config is not None:
                yield Tuned(key=record.key, config=record.config)

    def take(self, kind: str, planned: PlannedCase, outcome: JobOutcome) -> TuningRecord | None:
        """Save what became of a job; returns the result of its case, None where it has none yet.

        A job that was lost with its device leaves its case as it was.
        """
        if outcome.status == "lost":
            return None
        value = outcome.value if outcome.status == "done" else {"failed": outcome.reason}
        if outcome.status == "done" and "failed" not in value:
            if self.request.portfolio is None:
                return self._save(self._judged(planned, outcome))
            note = value | {"seconds": outcome.seconds, "device": outcome.device}
            self.saved_results.note(self.shared, kind, [(planned.key, note)])
            return None
        if kind == SEARCHED and self.request.portfolio is not None:
            note = {"found": [], "reason": value["failed"]}
            self.saved_results.note(self.shared, kind, [(planned.key, note)])
            return None
        return self._save(
            TuningRecord(
                key=planned.key,
                outcome="timeout" if outcome.status == "timeout" else "failed",
                reason=value["failed"],
                seconds=outcome.seconds,
                device=outcome.device,
                facts=self.facts,
            )
        )

    def _save(self, *records: TuningRecord) -> TuningRecord:
        # The results first: what the config file lacks after a kill between the two, the next start
        # writes; a case of the file whose result is not saved would be searched again.
        self.saved_results.save(self.conditions, records)
        self.write()
        return records[0]

    def _judged(self, planned: PlannedCase, outcome: JobOutcome) -> TuningRecord:
        trial = Trial.of(outcome.value)
        verdict = judge(trial, self.request.margin)
        side = verdict.side or ""
        return TuningRecord(
            key=planned.key,
            outcome=verdict.outcome,
            config=trial.configs.get(side),
            ms=_rounded(trial.ms.get(side)),
            old_ms=_rounded(trial.ms.get("old")),
            default_ms=_rounded(trial.ms.get("default")),
            noise=_rounded(trial.noise),
            reason=verdict.reason,
            seconds=outcome.seconds,
            device=outcome.device,
            facts=self.facts,
        )

    def close_portfolio(self) -> tuple[TuningRecord, ...]:
        """Choose the configs of a portfolio once all of its cases are timed, and save them."""
        if self.request.portfolio is None or self.searches() or self.timings():
            return ()
        notes = self.saved_results.notes(self.shared, TIMED)
        pending = [case for case in self.pending() if config_id(case.key) in notes]
        known: dict[str, Config] = {}
        rows: dict[str, dict[str, float]] = {}
        for planned in pending:
            note = notes[config_id(planned.key)]
            known |= note["configs"]
            rows[config_id(planned.key)] = self._allowed(note)
        chosen = choose.prune(rows, self.request.within)
        records = []
        for planned in pending:
            key = config_id(planned.key)
            note, text = notes[key], chosen.get(key, "")
            ms = note["ms"]
            records.append(
                TuningRecord(
                    key=planned.key,
                    outcome="wrong" if not text else "kept" if text == note["old"] else "tuned",
                    config=known.get(text),
                    ms=_rounded(ms.get(text)),
                    old_ms=_rounded(ms.get(note["old"])),
                    default_ms=_rounded(ms.get(note["default"])),
                    noise=_rounded(note["noise"]),
                    reason="; ".join(note["wrong"].values()),
                    seconds=note["seconds"],
                    device=note["device"],
                    facts=self.facts,
                )
            )
        if records:
            self._save(*records)
        return tuple(records)

    def _allowed(self, note: Mapping[str, Any]) -> dict[str, float]:
        """Return the times that count: where none is faster than the old one, that one's alone."""
        times: dict[str, float] = note["ms"]
        old = note["old"]
        if old not in times:
            return times
        faster = {
            text: ms
            for text, ms in times.items()
            if text != old and note["ratios"][text] < 1 - self.request.margin - note["noise"]
        }
        return faster or {old: times[old]}

    def write(self) -> None:
        """Put the results into the config file, where they are not there yet.

        A case that was put there and has another config by now was edited, and stays so. Raises
        PackError where the file is broken, cannot be written, or with a damaged record could not be
        read any more.
        """
        records = {config_id(r.key): r for r in self._tellable()}
        if not records:
            return
        for record in self.edited():
            del records[config_id(record.key)]
        before = self._file()
        try:
            file = results.merged(before, self.spec, records.values())
            text = self._checked(config_store.dumps(file))
        except (PackError, ValueError, TypeError, LookupError):
            raise self.saved_results.damaged() from None  # and the file stays as it is
        try:
            if not self.path.exists() or self.path.read_text(encoding="utf-8") != text:
                config_store.write(self.path, file)
        except OSError as error:
            raise unwritable(self.shown, error) from None
        known = self.saved_results.notes(self.conditions, WRITTEN)
        texts = {key: config_id(record.config or {}) for key, record in records.items()}
        new = [(records[key].key, text) for key, text in texts.items() if known.get(key) != text]
        if new:
            self.saved_results.note(self.conditions, WRITTEN, new)

    def _checked(self, text: str) -> str:
        """Return the text of a config file that can be read; raises PackError for another."""
        at = (self.path, self.shown, self.spec.name, self.path.stem)
        axes, defaults = self.spec.key_axes, self.spec.defaults
        tunables = partial(tunables_of, self.spec)
        config_store.store(*at, axes, defaults, tunables, read_bytes=lambda _: text.encode())
        return text

    def edited(self) -> tuple[TuningRecord, ...]:
        """Return the results whose config was put into the file, and was replaced by hand since."""
        written = self.saved_results.notes(self.conditions, WRITTEN)
        records = [
            record
            for record in self._tellable()
            if written.get(config_id(record.key)) == config_id(record.config or {})
        ]
        return results.edited(self._file(), self.spec, records) if records else ()

    def _tellable(self) -> list[TuningRecord]:
        """Return the results that the config file has to have."""
        return [r for r in self.saved_results.latest(self.conditions) if r.config is not None]

    def _file(self) -> ConfigFile:
        """Return what the file holds; a new one begins with what calls get without it."""
        view = looked_into(self.pack, self.target)
        if directories.locate(view, self.spec.name, self.platform) is None:
            return ConfigFile(kernel=self.spec.name, platform=self.platform)
        return directories.read_configs(view, self.spec, self.platform).content()

    def results(self) -> OpResults:
        """Return what there is by now."""
        return OpResults(
            op=self.spec.name,
            path=str(self.path),
            cases=len(self.plan.cases),
            records=self.records(),
            before=self.before,
        )


def looked_into(pack: PackSpec, target: ConfigDirectory) -> PackSpec:
    """Return a pack whose configs are looked for in the directory that is written first."""
    return evolve(pack, overlays=(str(target.path),)) if target.overlay else pack


def unwritable(shown: str, error: OSError) -> PackError:
    """Return the problem of a config file that cannot be written."""
    message = (
        f"cannot be written ({error.strerror}); correct that and repeat the command (the "
        f"results are saved), or choose another directory with {parameter('into')}"
    )
    return pack_error(shown, "KP405", message)


def _rounded(value: float | None) -> float | None:
    """Return milliseconds to the nanosecond."""
    return None if value is None else round(value, 6)
