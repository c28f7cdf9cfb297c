"""The vendored ops inside vLLM, on a platform that they are tuned for.

test_vendored.py runs this file in a process of its own, in Helion's interpreter.
"""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import helion
import pytest
import torch
import vllm
from attrs import evolve
from torch._dynamo.backends.common import aot_autograd
from torch._subclasses.fake_tensor import FakeTensorMode
from vllm.kernels.helion import CaseKey, get_registered_kernels, ops, utils

from kernelpkg.bench.inputs import SENTINEL, make_inputs
from kernelpkg.bench.reference import check_case
from kernelpkg.bench.stand_ins import make_stand_ins
from kernelpkg.configs import platforms
from kernelpkg.configs.selection import read_selection
from kernelpkg.manifest.cases import Case, Evaluator, cases_of
from kernelpkg.manifest.guards import CallCheck
from kernelpkg.manifest.opschema import parse_schema
from kernelpkg.manifest.spec import ArgSpec
from kernelpkg.packs.read import read_kernel, read_pack
from kernelpkg.vllm.config_format import key_axes

ROOT = Path(__file__).parents[4]
TREE = Path(os.environ["VLLM_TREE"])
PLATFORM = "nvidia_h200"
MAKE = "make_case_inputs"
"""What the generator of an op calls for each of its cases."""

PACK = read_pack(ROOT, "kernelpkg")
SPECS = {name: read_kernel(ROOT, name) for name in PACK.kernels}

# vLLM asks the GPU for its name when an op is imported, and a CPU has none.
utils.get_canonical_gpu_name = lambda device_id=None: PLATFORM

each = pytest.mark.parametrize("name", PACK.kernels)


def called(name: str) -> list[Case]:
    """Return the cases that are for tests alone; Helion launches nothing for an empty output."""
    cases = cases_of(SPECS[name], "test")
    return [case for case in cases if case.use == ("test",) and case.values["num_tokens"]]


@pytest.fixture(scope="session")
def kernels() -> dict[str, Any]:
    """vLLM's wrappers of the vendored ops; each import adds its own."""
    for name in PACK.kernels:
        before = get_registered_kernels()
        importlib.import_module(f"{ops.__name__}.{name}")
        assert get_registered_kernels().keys() - before.keys() == {name}
    return get_registered_kernels()


def key_of(name: str, case: Case) -> CaseKey:
    """Return the key of a case: the axes that rules match, by vLLM's names."""
    theirs = key_axes(SPECS[name], PACK).theirs
    return CaseKey({theirs.get(axis, axis): case.values[axis] for axis in SPECS[name].key_axes})


def with_tokens(name: str, case: Case, tokens: int) -> tuple[Any, ...]:
    """Return the arguments of a call that differs from a case in the number of tokens."""
    values = {**case.values, "num_tokens": tokens}
    return make_inputs(SPECS[name], Case(values=values, use=(), grid=0))


def test_everything_comes_from_the_tree(kernels):
    """Neither vLLM nor an op is imported from elsewhere."""
    modules = [importlib.import_module(f"{ops.__name__}.{name}") for name in kernels]
    for module in (vllm, utils, *modules):
        assert Path(module.__file__).is_relative_to(TREE)


def test_vllm_imports_all_of_its_kernels(kernels):
    """The function that vLLM's tools call finds ours among them, and registers nothing twice."""
    assert {f"{ops.__name__}.{name}" for name in kernels} <= set(ops.import_all_kernels())
    assert get_registered_kernels() == kernels


@each
def test_an_op_is_registered_and_enabled(kernels, name):
    """vLLM's reason for switching an op off is that it has no configs for the platform."""
    assert kernels[name].op_name == name
    assert (kernels[name]._disabled, kernels[name]._disabled_reason) == (False, None)


@each
def test_the_schema_is_that_of_the_manifest(kernels, name):
    """vLLM derives it from the function's annotations, and from what it is told is written."""
    schema = str(getattr(torch.ops.vllm_helion, name).default._schema)
    found, wanted = parse_schema(schema[schema.index("(") :]), SPECS[name].schema
    facts = [
        [(arg.name, arg.type, arg.optional, arg.mutated, arg.default) for arg in schema.args]
        for schema in (found, wanted)
    ]
    assert facts[0] == facts[1]
    assert found.returns == wanted.returns


def described(value: Any, arg: ArgSpec) -> Any:
    """Return what calls are told apart by: of a tensor its shape, strides and dtype.

    Strides that the manifest leaves open may be any: ours pads rows.
    """
    if not isinstance(value, torch.Tensor):
        return type(value), value
    strides = [*value.stride()]
    for variant in arg.variants:
        for place, stride in enumerate(variant.strides or ()):
            if stride is None and len(variant.strides or ()) == len(strides):
                strides[place] = 0
    return tuple(value.shape), strides, value.dtype


@each
def test_inputs_for_tuning_are_those_of_the_manifest(kernels, name):
    """A key for each case of the grid, in its order, and arguments of the same shapes."""
    spec, evaluate = SPECS[name], Evaluator()
    with FakeTensorMode():  # the largest need gigabytes
        found = kernels[name].get_inputs()
        wanted = {
            key_of(name, case): make_stand_ins(spec, case, device="cpu", evaluate=evaluate)
            for case in cases_of(spec, "tune")
        }
    assert list(found) == list(wanted)
    for key, args in found.items():
        ours = map(described, wanted[key], spec.args)
        assert list(map(described, args, spec.args)) == list(ours), key


@each
def test_inputs_for_tuning_are_on_the_gpu_where_there_is_one(kernels, name, monkeypatch):
    """vLLM's tools tune what the generator gives, and move nothing."""
    asked = set()
    space = kernels[name]._input_generator.__globals__
    monkeypatch.setitem(space, MAKE, lambda device, **axes: asked.add(device))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert len(kernels[name].get_inputs()) == len(cases_of(SPECS[name], "tune"))
    assert asked == {"cuda"}


@each
def test_inputs_for_tuning_hold_what_the_manifest_says(kernels, name, monkeypatch):
    """Random values are spread as ours are, and all others are equal to ours."""
    space = kernels[name]._input_generator.__globals__
    make = space[MAKE]
    few = lambda device, **axes: make(device, **axes) if axes["num_tokens"] == 2 else ()  # noqa: E731
    monkeypatch.setitem(space, MAKE, few)
    torch.manual_seed(0)
    found = {key: args for key, args in kernels[name].get_inputs().items() if args}
    cases = [case for case in cases_of(SPECS[name], "tune") if case.values["num_tokens"] == 2]
    assert len(found) == len(cases)
    for case in cases:
        wanted = make_inputs(SPECS[name], case)
        for arg, left, right in zip(
            SPECS[name].schema.args, found[key_of(name, case)], wanted, strict=True
        ):
            if not isinstance(right, torch.Tensor):
                assert left == right, arg.name
            elif not arg.mutated or (right.float() != SENTINEL).any():
                assert_like(arg.name, left, right)


def assert_like(name: str, got: torch.Tensor, want: torch.Tensor) -> None:
    """Fail unless two tensors are equal, or are as random as each other."""
    left, right = got.double(), want.double()
    if not torch.equal(left, right):
        assert min(left.unique().numel(), right.unique().numel()) > 50, name
        assert torch.allclose(left.mean(), right.mean(), atol=0.2), name
        assert torch.allclose(left.std(), right.std(), rtol=0.2), name


@each
def test_a_tuned_case_picks_itself(kernels, name):
    """The inputs that vLLM's autotuner measures a key with get the config of that key."""
    configured = kernels[name].get_configured_op()
    keys = list(configured.configs)
    with FakeTensorMode():
        found = kernels[name].get_inputs()
    tuned = [key for key in found if key in configured.configs]
    assert tuned
    for key in tuned:
        assert configured.config_picker(found[key], keys) == key


@each
def test_a_picker_answers_by_the_keys_it_is_given(kernels, name):
    """What it answered over other keys is not taken for an answer over these.

    One token reaches no key of more, nor the default one of more.
    """
    configured = kernels[name].get_configured_op()
    keys, pick = list(configured.configs), configured.config_picker
    with FakeTensorMode():
        key, args = next(item for item in kernels[name].get_inputs().items() if item[0] in keys)
    others = [other for other in keys if other != key]
    for given, wanted in ((keys, {key}), (others, {*others}), (keys, {key}), ([], {None})):
        assert pick(args, given) in wanted
    with pytest.raises(ValueError, match=r"^no config is for calls with num_?tokens of 1, "):
        pick(args, [CaseKey.default()])


@each
def test_calls_get_the_configs_that_the_rules_give(kernels, name):
    """By vLLM's own reading of our files, for calls at, between and beyond the tuned sizes.

    A variant that was never tuned gets the default config: vLLM cannot take the positional lists
    out of another variant's.
    """
    spec = SPECS[name]
    selection = read_selection(PACK, spec, platforms.resolve(PLATFORM, extra=PACK.platforms))
    configured = kernels[name].get_configured_op()
    select = configured._create_config_selector(configured._create_key_computer())
    read = CallCheck(spec, name).axes_of
    cases = cases_of(spec, "tune") + cases_of(spec, "test")
    outcomes, evaluate = set(), Evaluator()
    with FakeTensorMode():
        for case in [case for case in cases if case.values["num_tokens"] == 1]:
            for tokens in (1, 2, 3, 9, 500, 512, 8192, 20_000):
                one = evolve(case, values={**case.values, "num_tokens": tokens})
                args = make_stand_ins(spec, one, device="cpu", evaluate=evaluate)
                options = list(selection.options(read(args)))
                chosen = options[-1] if options[0].outcome == "default" else options[0]
                assert select(args) == as_read(chosen.config), (case, tokens, chosen.reason)
                outcomes.add(options[0].outcome)
    assert outcomes == {"exact", "bucketed", "extrapolated", "default"}


def as_read(config: Mapping[str, Any]) -> helion.Config:
    """Return a config of ours as vLLM reads it from a file."""
    return helion.Config(**json.loads(json.dumps(dict(config))))


@each
def test_one_token_never_shares_code_with_many(kernels, name):
    """Helion 1.4 reuses code that was compiled for one row unless the key says otherwise."""
    configured = kernels[name].get_configured_op()
    key, bind = configured._create_key_computer(), configured._decorated_kernel.bind
    for case in [*cases_of(SPECS[name], "tune")[:1], *called(name)]:
        for order in ((1, 16), (17, 1)):
            left, right = (with_tokens(name, case, tokens) for tokens in order)
            assert key(*left) != key(*right), (case, order)
            assert bind(left) is not bind(right), (case, order)


def test_tensors_of_several_leading_sizes_are_taken(kernels):
    """Of each of them the product is the number of tokens, also where one of them is 1."""
    op = torch.ops.vllm_helion.silu_mul_fp8
    rows = torch.randn(6, 2 * 64)
    want = op(rows, torch.ones(1)).float()
    for sizes in [(1, 6), (6, 1), (2, 3), (1, 3, 2)]:
        found = op(rows.view(*sizes, 2 * 64), torch.ones(1))
        assert found.shape == (*sizes, 64)
        assert torch.equal(found.float().view(6, 64), want)


@each
def test_no_tokens_run_what_is_compiled_for_many(kernels, name):
    """It launches nothing for them; what is compiled for one token launches for one."""
    configured = kernels[name].get_configured_op()
    key = configured._create_key_computer()
    for case in [*cases_of(SPECS[name], "tune")[:1], *called(name)]:
        none, one, many = (key(*with_tokens(name, case, tokens)) for tokens in (0, 1, 2))
        assert none == many != one, case


@each
def test_an_op_agrees_with_its_reference(kernels, name):
    """All test cases: every dtype, optional arguments left out, and scales that are transposed."""
    cases = called(name)
    problems = [
        check_case(SPECS[name], getattr(torch.ops.vllm_helion, name), case, device="cpu")
        for case in cases
    ]
    assert [problem for problem in problems if problem is not None] == []
    assert len(cases) >= 6


@each
def test_the_autotuner_holds_configs_against_the_reference(kernels, name):
    """As Helion does it: what the op gives for the test cases is close, and zeros are not."""
    settings, op = kernels[name].helion_settings, getattr(torch.ops.vllm_helion, name)
    check = settings.autotune_baseline_accuracy_check_fn or partial(
        torch.testing.assert_close,
        rtol=settings.autotune_baseline_rtol,
        atol=settings.autotune_baseline_atol,
    )
    for case in called(name):
        got, want = make_inputs(SPECS[name], case), make_inputs(SPECS[name], case)
        result, baseline = op(*got), settings.autotune_baseline_fn(*want)
        if result is None:
            check(list(got), list(want))
            wrong = SPECS[name].schema.arg_names.index(SPECS[name].schema.written[0])
            with pytest.raises(AssertionError):
                check([*got[:wrong], torch.zeros_like(got[wrong]), *got[wrong + 1 :]], list(want))
        else:
            check(result, baseline)
            with pytest.raises(AssertionError):
                check(torch.zeros_like(result), baseline)


@each
def test_torch_compile_sees_an_op_with_any_number_of_tokens(kernels, name):
    """One graph for all, with a symbolic size, gives bit for bit what an eager call gives."""
    op = getattr(torch.ops.vllm_helion, name)
    graphs = []
    torch._dynamo.reset()  # forget which sizes of the ops before have changed

    def backend(graph, examples):
        graphs.append(graph)
        return aot_autograd(fw_compiler=lambda graph, _: graph)(graph, examples)

    case = called(name)[0]
    compiled = torch.compile(op, fullgraph=True, backend=backend)
    for tokens in (11, 13, 37):
        got, want = with_tokens(name, case, tokens), with_tokens(name, case, tokens)
        for arg in got:  # as vLLM does it; Dynamo raises where the size would be fixed
            if isinstance(arg, torch.Tensor) and arg.shape[0] == tokens:
                torch._dynamo.mark_dynamic(arg, 0)
        results = compiled(*got), op(*want)
        for left, right in zip((*got, results[0]), (*want, results[1]), strict=True):
            if isinstance(left, torch.Tensor):
                assert torch.equal(*(side.contiguous().view(torch.uint8) for side in (left, right)))
    assert len(graphs) == 1


def test_the_op_that_returns_has_a_fake_implementation(kernels):
    """Shapes, dtype and device come from it without a call, for inputs of any rank."""
    with FakeTensorMode():
        for shape in ((0, 512), (3, 512), (2, 3, 512)):
            x = torch.empty(shape, dtype=torch.bfloat16, device="cuda")
            found = torch.ops.vllm_helion.silu_mul_fp8(x, torch.ones(1, device="cuda"))
            assert (found.shape, found.dtype) == ((*shape[:-1], 256), torch.float8_e4m3fn)
            assert found.device == x.device
            assert found.is_contiguous()
