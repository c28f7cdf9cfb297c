"""The store to config files of vLLM's: one for each platform, with default entries, or refused."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, combinations

from kernelpkg.configs import directories
from kernelpkg.configs.store import ConfigFile, TunedCase, shown_key
from kernelpkg.errors import PackError, Problem, collecting
from kernelpkg.files import Files
from kernelpkg.manifest.cases import show
from kernelpkg.manifest.helion_config import tunables_of
from kernelpkg.manifest.spec import CaseKey, KernelSpec, PackSpec, Scalar
from kernelpkg.vllm import config_format
from kernelpkg.vllm.config_format import MARK
from kernelpkg.vllm.tree import VllmTree
from kernelpkg.vllm.vendor.op_code import AxisCode
from kernelpkg.vllm.vendor.op_picker import default_key
from kernelpkg.vllm.vendor.op_sizes import shared_case


def write_configs(
    pack: PackSpec,
    spec: KernelSpec,
    codes: Mapping[str, AxisCode],
    free: Sequence[str],
    tree: VllmTree,
    files: Files | None = None,
    theirs: Mapping[str, str] = {},
) -> dict[str, str]:
    """Return the config file of each platform that the store has one for, as text.

    `codes` are the axes, `free` those by which a size may be 1 or larger. `files` has what was read
    before, `theirs` vLLM's names of axes by ours. Every key names every axis of the rules. Raises
    PackError with all problems of all files.
    """
    texts: dict[str, str] = {}
    problems: list[Problem] = []
    axes = [*dict.fromkeys([MARK, *spec.key_axes, *free])]
    tunables = tunables_of(spec, files)
    for platform in directories.platforms_of(pack, spec.name):
        shown = directories.place_of(pack, spec.name, platform).shown
        with collecting(problems):
            file = directories.read_configs(pack, spec, platform, files).content()
            wrong = [*_values(spec, codes, file)]
            found = [*_spelling(tree, platform), *wrong, *_lacking(spec, platform, file)]
            found += [] if wrong else _shared(spec, free, platform, file)
            problems += [Problem(path=shown, code=code, message=text) for code, text in found]
            filled = _filled(spec, free, file)
            unset = _unset(spec, platform, filled, tunables)
            problems += [Problem(path=shown, code="KP815", message=text) for text in unset]
            texts[platform] = config_format.dumps(filled, axes, theirs)
    if problems:
        raise PackError(problems=tuple(problems))
    return texts


def _row(spec: KernelSpec, key: CaseKey) -> dict[str, Scalar]:
    """Return a key with all axes of the rules, in their order."""
    return {axis: key[axis] if axis in key else spec.defaults[axis] for axis in spec.key_axes}


def _spelling(tree: VllmTree, platform: str) -> Iterator[tuple[str, str]]:
    spelled = tree.spelled(platform)
    if spelled != platform:
        text = (
            f"vLLM calls platform '{platform}' '{spelled}' and would never look for this file; "
            f"tune for '{spelled}', or rename the platform here and in the file"
        )
        yield "KP816", text


def _values(
    spec: KernelSpec, codes: Mapping[str, AxisCode], file: ConfigFile
) -> Iterator[tuple[str, str]]:
    """Yield the values of keys that no call has, for they are not of their axis's type."""
    for place, case in enumerate(file.cases):
        for axis, value in case.key.items():
            never = value is None and not codes[axis].nullable
            if never or spec.axis_types[axis].problem(value) is not None:
                text = (
                    f"case {place}, key: axis '{axis}' is {show(value)}, which it is in no call; "
                    "correct it, or tune again"
                )
                yield "KP818", text


def _shared(
    spec: KernelSpec, free: Sequence[str], platform: str, file: ConfigFile
) -> Iterator[tuple[str, str]]:
    """Yield the cases that calls with a size of 1 share with larger ones.

    A picker of the kernel's own is asked for nothing here: what is written around it drops an
    answer of the other class, by the key.
    """
    rows = [_row(spec, case.key) for case in file.cases if case.key]
    for axis in free:
        if spec.picker is not None and axis in spec.key_axes:
            continue
        shared = shared_case(spec, rows, axis)
        if shared is not None:
            key, larger = shared
            text = (
                f"kernel '{spec.name}' on {platform}: calls with {axis}=1 and {axis}={larger} "
                f"reach one case, {shown_key(key)}, and vLLM would run the second with code for "
                f"the first; {_apart(spec, axis, key, larger)}, or fix the size with "
                "hl.specialize in the kernel, and name it in [helion] specialize"
            )
            yield "KP817", text


def _apart(spec: KernelSpec, axis: str, key: CaseKey, larger: int) -> str:
    """Say what would keep two calls of a shared case apart."""
    match = next((rule.match for rule in spec.rules if rule.axis == axis), None)
    if match in (None, "ignore"):
        return f"give {axis} a rule" if match is None else f"give {axis} another match"
    return f"tune {axis}={larger if key[axis] == 1 else 1} too"


def _lacking(spec: KernelSpec, platform: str, file: ConfigFile) -> Iterator[tuple[str, str]]:
    """Yield that calls without a case have no config to run with."""
    own = any(not case.key for case in file.cases)
    if spec.miss == "default" and not own and "block_sizes" not in (spec.default or {}):
        text = (
            f"kernel '{spec.name}' on {platform}: calls that reach no case have no config, for "
            "vLLM does not fall back to Helion's own; give block_sizes in [helion] default, or "
            'say action = "error" in [miss]'
        )
        yield "KP815", text


def _unset(
    spec: KernelSpec, platform: str, file: ConfigFile, tunables: Sequence[str]
) -> Iterator[str]:
    """Yield the fields that the kernel registers and a config lacks: Helion has no default then."""
    for name in tunables:
        lacking = next((config for config in file.configs if name not in config), None)
        if lacking is not None:
            what = "[helion] default" if lacking == spec.default else f"a config ({dict(lacking)})"
            yield (
                f"kernel '{spec.name}' on {platform}: {what} has no '{name}', which the kernel "
                "registers and vLLM has no default of; give one"
            )


def _filled(spec: KernelSpec, free: Sequence[str], file: ConfigFile) -> ConfigFile:
    """Return a file whose keys name all axes, after an entry for each class of default calls."""
    found = [*file.configs]
    own = next((case.config for case in file.cases if not case.key), None)
    entries: list[TunedCase] = []
    if own is not None or spec.miss == "default":
        if own is None:
            own = len(found)
            found.append(spec.default or {})
        classes = chain.from_iterable(combinations(free, n) for n in range(len(free) + 1))
        entries = [TunedCase(key=default_key(ones), config=own) for ones in classes]
    entries += [
        TunedCase(key=_row(spec, case.key), config=case.config) for case in file.cases if case.key
    ]
    return ConfigFile(
        kernel=file.kernel, platform=file.platform, configs=tuple(found), cases=tuple(entries)
    )
