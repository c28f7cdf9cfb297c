"""What commands on packs, and those of vLLM, print with `--json`, as types.

JSON Schemas that users validate with are made of them, so a change here is one of the published
format: a key that goes or changes its meaning raises `console.FORMAT`, and a new one does not.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NotRequired, TypedDict

from kernelpkg.cli.doctor import Finding
from kernelpkg.cli.list import PackEntry
from kernelpkg.configs.transfer import TransferAction
from kernelpkg.errors import Problem
from kernelpkg.manifest.spec import Backward, Scalar
from kernelpkg.packs.verify import LockState
from kernelpkg.runtime.reports import LoadStatus, Mode
from kernelpkg.vllm.vendor.files import Drift, FileAction

AxisValues = Mapping[str, Scalar]
ConfigFields = Mapping[str, Any]


class JsonDocument(TypedDict):
    """The key that every document has first."""

    format: Literal[1]


class FailureDocument(JsonDocument):
    """A command could not do its work; these are the lines that it printed on stderr."""

    errors: list[str]


class ListDocument(JsonDocument):
    packs: list[PackEntry]


class NewDocument(JsonDocument):
    root: str
    packs: list[str]
    files: list[str]
    remarks: list[str]


class SchemaDocument(JsonDocument):
    files: list[str]


class DoctorDocument(JsonDocument):
    findings: list[Finding]


class LoadedKernel(TypedDict):
    name: str
    op: str
    status: LoadStatus
    mode: Mode | None
    platform: str
    cases: int
    configs: int
    file: str | None
    lock: LockState | None
    reason: str
    check: NotRequired[str | None]


class Loaded(TypedDict):
    pack: str
    device: Literal["cpu", "cuda"]
    platform: str
    seconds: float
    kernels: list[LoadedKernel]


class LoadDocument(JsonDocument, Loaded):
    pass


class Resources(TypedDict):
    kernel: str
    platform: str
    path: str
    config: int | None
    case: AxisValues
    registers: int | None
    shared: int | None
    spills: int | None
    warps: int | None


class Counts(TypedDict):
    level: Literal[0, 1, 2, 3]
    kernels: int
    files: int
    cases: int
    configs: int
    platforms: list[str]
    variants: NotRequired[int]
    bindings: NotRequired[int]
    normalised: NotRequired[int]
    sources: NotRequired[int]
    prebuilt: NotRequired[int]
    resources: NotRequired[list[Resources]]
    runs: NotRequired[int]
    tuned_runs: NotRequired[int]
    runs_left_out: NotRequired[int]


class CheckedPack(TypedDict):
    findings: list[Problem]
    checked: Counts


class CheckDocument(JsonDocument, CheckedPack):
    pass


class TestDocument(JsonDocument):
    load: Loaded
    check: CheckedPack


class WarmedOp(TypedDict):
    op: str
    ready: int
    compiled: int
    problems: list[str]


class Fallback(TypedDict):
    op: str
    reason: str
    signatures: int


class WarmDocument(JsonDocument):
    seconds: float
    ops: list[WarmedOp]
    fallbacks: list[Fallback]


class HelionPart(TypedDict):
    requires: str
    settings: ConfigFields
    default: ConfigFields | None
    specialize: list[str]


class ShownAxis(TypedDict):
    name: str
    expression: str
    rule: str | None


class ShownRoute(TypedDict):
    native: str
    when: list[str]
    eager: list[str]
    capture_only: bool


class Structure(TypedDict):
    variants: list[str]
    blocks: int
    reductions: int
    loops: int
    loads: int
    stores: int
    atomics: int
    tunables: list[str]
    lists: Mapping[str, int]
    constants: list[str]


class ShowDocument(JsonDocument):
    op: str
    version: int
    summary: str
    schema: str
    source: str
    reference: str
    fake_impl: str
    backward: Backward | None
    helion: HelionPart
    axes: list[ShownAxis]
    guard: list[str]
    miss: Literal["default", "error"]
    cases: Mapping[str, int]
    accuracy: Mapping[str, ConfigFields]
    properties: Mapping[str, ConfigFields]
    tuned_for: list[str]
    routes: list[ShownRoute]
    structure: NotRequired[list[Structure]]


class VendoredFile(TypedDict):
    path: str
    action: FileAction


class DriftedFile(TypedDict):
    path: str
    drift: Drift


class VendorDocument(JsonDocument):
    into: str
    vllm: str | None
    pack: str
    version: str
    files: list[VendoredFile]
    remarks: list[str]


class VendorCheckDocument(JsonDocument):
    into: str
    vllm: str | None
    pack: str
    version: str
    files: list[DriftedFile]
    remarks: list[str]


class TransferredFile(TypedDict):
    path: str
    action: TransferAction
    cases: int
    configs: int


class SkippedFile(TypedDict):
    path: str
    reason: str


class TransferDocument(JsonDocument):
    files: list[TransferredFile]
    skipped: list[SkippedFile]
    remarks: list[str]
