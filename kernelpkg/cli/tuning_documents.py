"""What commands on tuned configs print with `--json`, as types; see `documents`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypedDict

from kernelpkg.autotune.saved_results import TuningOutcome
from kernelpkg.cli.documents import AxisValues, ConfigFields, JsonDocument
from kernelpkg.configs.picker import Step
from kernelpkg.configs.selection import CallOutcome, ConfigOutcome
from kernelpkg.errors import Problem
from kernelpkg.manifest.spec import Scalar
from kernelpkg.report.coverage import SizeLine


class ExplainDocument(JsonDocument):
    kernel: str
    platform: str
    axes: AxisValues
    filled: list[str]
    key: AxisValues | None
    outcome: ConfigOutcome
    config: ConfigFields | None
    tuned_on: str | None
    file: str | None
    reason: str
    trace: list[Step]


class CodeDocument(JsonDocument):
    code: str
    means: str
    remedy: str


class Moved(TypedDict):
    axis: str
    value: Scalar
    to: Scalar
    extrapolated: bool
    ratio: float | None


class CoveredCall(TypedDict):
    outcome: CallOutcome
    origin: Literal["none", "tuned", "variant", "empty", "borrowed", "manifest", "helion"]
    tuned_on: str | None
    key: AxisValues | None
    config: int | None
    moves: list[Moved]
    reason: str


class CoveredValue(CoveredCall):
    value: Scalar


class CoveredStretch(CoveredCall):
    first: int
    last: int | None
    unless: list[str]


class CoveredRow(TypedDict):
    axes: AxisValues
    calls: list[CoveredValue]
    line: list[CoveredStretch]


class CoveredCalls(TypedDict):
    outcomes: Mapping[str, int]
    farthest: Moved | None
    rows: list[CoveredRow]


class CoveredModel(CoveredCalls):
    model: str
    given: AxisValues
    lacking: list[str]
    impossible: list[str]


class CoveredOp(CoveredCalls):
    kernel: str
    op: str
    platform: str
    unverified: str | None
    file: str | None
    cases: int
    tuned_configs: int
    borrows: list[str]
    axis: str | None
    sizes: list[SizeLine]
    models: list[CoveredModel]
    configs: list[ConfigFields]


class CoverageDocument(JsonDocument):
    pack: str
    platforms: list[str]
    notes: list[str]
    ops: list[CoveredOp]


class CaseResult(TypedDict):
    key: AxisValues
    outcome: TuningOutcome
    config: ConfigFields | None
    ms: float | None
    old_ms: float | None
    default_ms: float | None
    noise: float | None
    reason: str
    seconds: float
    device: str


class TunedOp(TypedDict):
    op: str
    path: str
    cases: int
    tuned: int
    kept: int
    wrong: int
    failed: int
    timeout: int
    before: int
    left: int
    speedup_over_old: float | None
    speedup_over_default: float | None
    seconds: float
    results: list[CaseResult]


class AutotuneDocument(JsonDocument):
    platform: str
    interrupted: bool
    seconds: float
    ops: list[TunedOp]
    problems: list[str]
    remarks: list[str]


class DryRunCase(TypedDict):
    op: str
    key: AxisValues
    old: ConfigFields | None
    tuned: bool


class TuningPlanDocument(JsonDocument):
    platform: str
    cases: list[DryRunCase]


class Median(TypedDict):
    median: float
    low: float
    high: float


class Bytes(TypedDict):
    read: int
    written: int


class TimedSide(TypedDict):
    gpu_us: Median | None
    host_us: Median | None
    gpu_ratio: Median | None
    host_ratio: Median | None
    agrees: bool | None
    reason: str


class TimedCase(TypedDict):
    op: str
    axes: AxisValues
    bytes: Bytes | None
    sides: Mapping[str, TimedSide]
    failed: str | None


class TimeChange(TypedDict):
    op: str
    case: str | None
    what: str
    base: str
    ratio: float
    slower: bool


class Against(TypedDict):
    run: str
    changes: list[TimeChange]
    remarks: list[str]


class BenchDocument(JsonDocument):
    edition: int
    run: str
    date: str
    pack: str
    digest: str
    device: Literal["cpu", "cuda"]
    platform: str
    machine: str
    interpreted: bool
    versions: Mapping[str, str]
    interrupted: bool
    broken: str | None
    rows: list[TimedCase]
    against: Against | None


class MadeBuild(TypedDict):
    platform: str
    directory: str
    arch: str
    compiled: int
    binaries: int
    bytes: int
    seconds: float
    problems: list[Problem]


class CheckedBuild(TypedDict):
    platform: str
    directory: str
    current: bool


class BuildDocument(JsonDocument):
    builds: list[MadeBuild]


class BuildCheckDocument(JsonDocument):
    builds: list[CheckedBuild]


class LockDocument(JsonDocument):
    path: str
    action: Literal["write", "unchanged"]
    pack: str
    version: str
    kernels: int
    files: int
    configs: int
    fingerprints: int
    builds: int
    remarks: list[str]


class LockChange(TypedDict):
    path: str
    change: str
    code: str
    message: str


class LockCheckDocument(JsonDocument):
    pack: str
    version: str
    drift: list[LockChange]
    remarks: list[str]


class ReportDocument(JsonDocument):
    page: str
    bytes: int
    runs: int
    ops: int
