"""What a kernel accepts, with tensors that have nothing but facts; no torch."""

# ruff: noqa: E501  # messages are asserted as whole lines

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from attrs import evolve

from kernelpkg.errors import CallError
from kernelpkg.expr.language import parse_expr
from kernelpkg.manifest.cases import TensorFacts, expand
from kernelpkg.manifest.guards import CallCheck, compile_axes, contradictions
from kernelpkg.packs.read import read_kernel

GOOD = Path(__file__).parents[1] / "golden" / "good"


class Tensor:
    """The facts of a tensor; strides are contiguous unless given."""

    def __init__(self, *shape, dtype="bfloat16", strides=None, device="cpu"):
        self.shape = shape
        self.ndim = len(shape)
        self.dtype = f"torch.{dtype}"
        self.device = device
        plain, step = [], 1
        for size in reversed(shape):
            plain.insert(0, step)
            step *= size
        self._plain = tuple(plain)
        self._strides = self._plain if strides is None else strides

    def stride(self, place=None):
        return self._strides if place is None else self._strides[place]

    def numel(self):
        found = 1
        for size in self.shape:
            found *= size
        return found

    def is_contiguous(self):
        return self._strides == self._plain


def acceptance(root=GOOD):
    return CallCheck(read_kernel(root, "x"), "good::x")


def call(out=None, input=None, residual=None, factor=2.0, group=4):
    return [
        Tensor(3, 8) if out is None else out,
        Tensor(3, 8) if input is None else input,
        residual,
        factor,
        group,
    ]


def edited(tmp_path, *edits):
    """Return the check of calls of the good kernel, with edits of its manifest."""
    shutil.copytree(GOOD, tmp_path / "good")
    path = tmp_path / "good/kernels/x/kernel.toml"
    for old, new in edits:
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))
    return acceptance(tmp_path / "good")


@pytest.mark.parametrize(
    ("args", "axes"),
    [
        (call(), (3, 8, 4, "bfloat16", False)),
        (call(residual=Tensor(3, 2, 4)), (3, 8, 4, "bfloat16", True)),
        (call(input=Tensor(3, 8, strides=(16, 1))), (3, 8, 4, "bfloat16", False)),
        (call(out=Tensor(0, 8), input=Tensor(0, 8)), (0, 8, 4, "bfloat16", False)),
        (call(Tensor(1, 8, dtype="float32"), Tensor(1, 8, dtype="float32", strides=(7, 1))), (1, 8, 4, "float32", False)),
    ],
    ids=["plain", "residual", "strided", "empty", "one row"],
)  # fmt: skip
def test_a_call_that_is_accepted_has_its_axes(args, axes):
    """The values come in the order of the manifest."""
    accepted = acceptance()
    assert accepted.axes_of(args) == axes
    assert accepted.axis_names == ("num_tokens", "hidden_size", "group", "dtype", "has_residual")
    assert compile_axes(accepted.spec)(*args) == axes


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (call(out=Tensor(3, 8, device="cuda:0")), "argument 'input' is on cpu, and 'out' on cuda:0; all must be on one device"),
        (call(residual=Tensor(3, 2, 4, device="cuda:1")), "argument 'residual' is on cuda:1, and 'out' on cpu; all must be on one device"),
        (call(input=Tensor(8)), "axis hidden_size = 'input.shape[1]' cannot be read: 'input' has 1 dimension"),
        (call(input=Tensor()), "axis num_tokens = 'input.shape[0]' cannot be read: 'input' has 0 dimensions"),
        (call(group=3), "guard 'hidden_size % group == 0' does not hold (hidden_size = 8, group = 3)"),
        (call(group=0), "guard 'hidden_size % group == 0' divides by zero (hidden_size = 8, group = 0)"),
        (call(input=Tensor(3, 8, dtype="int8")), "guard 'dtype in [bfloat16, float32]' does not hold (dtype = int8)"),
        (call(out=Tensor(3, 8, dtype="float32")), "argument 'out' has dtype float32, and must have bfloat16"),
        (call(out=Tensor(4, 8)), "argument 'out' has shape (4, 8), and must have (3, 8), from [num_tokens, hidden_size]"),
        (call(out=Tensor(3, 8, 1)), "argument 'out' has shape (3, 8, 1), and must have (3, 8), from [num_tokens, hidden_size]"),
        (call(out=Tensor(3, 8, strides=(1, 3))), "argument 'out' has strides (1, 3), and must be contiguous"),
        (call(input=Tensor(3, 8, strides=(1, 3))), "argument 'input' has strides (1, 3), and must have (*, 1)"),
        (call(input=Tensor(3, 8, 1)), "argument 'input' has shape (3, 8, 1), and must have (3, 8), from [num_tokens, hidden_size]"),
        (call(residual=Tensor(3, 8)), "argument 'residual' has shape (3, 8), and must have (3, 2, 4), from [num_tokens, hidden_size // group, group]"),
    ],
)  # fmt: skip
def test_another_call_is_refused_in_one_line(args, message):
    """Devices, axes, guards, dtypes, shapes and strides are held against the manifest."""
    with pytest.raises(CallError) as caught:
        acceptance().axes_of(args)
    assert str(caught.value) == f"good::x: {message}"


RESIDUAL = 'shape = ["num_tokens", "hidden_size // group", "group"]'


@pytest.mark.parametrize(
    ("shape", "accepted"),
    [
        ((3, 8), True),
        ((24,), False),
        ((8,), False),
        ((3, 1, 8), True),
        ((1, 3, 8), True),
        ((8, 3), False),
        ((2, 8), False),
        ((3, 3, 8), False),
        ((), False),
    ],
)
def test_a_spread_size_is_any_number_of_sizes_with_its_product(tmp_path, shape, accepted):
    """'*num_tokens' takes rows in any arrangement, and only their number counts."""
    taken = edited(tmp_path, (RESIDUAL, 'shape = ["*num_tokens", "hidden_size"]'))
    args = call(residual=Tensor(*shape))
    if accepted:
        assert taken.axes_of(args)[0] == 3
        return
    with pytest.raises(CallError) as caught:
        taken.axes_of(args)
    assert str(caught.value) == (
        f"good::x: argument 'residual' has shape {shape}, and must have (*3, 8), "
        "from [*num_tokens, hidden_size]"
    )


SPREAD = (
    ('"input.shape[0]"', '"input.numel() // input.shape[-1]"'),
    ('"input.shape[1]"', '"input.shape[-1]"'),
    ('input = { shape = ["num_tokens", "hidden_size"], dtype = "dtype", strides = ["*", 1] }',
     'input = { shape = ["*num_tokens", "hidden_size"], dtype = "dtype" }'),
)  # fmt: skip


@pytest.mark.parametrize(
    ("said", "shape", "other"),
    [
        ('like = "input"', (2, 3, 8), (3, 2, 8)),
        ('like = "input"', (2, 3, 8), (6, 8)),
        ('like = "input", shape = ["*", 2, 4]', (2, 3, 2, 4), (6, 2, 4)),
        ('like = "input", shape = [1, "*"]', (1, 2, 3), (1, 3, 2)),
    ],
)
def test_sizes_are_those_of_another_argument(tmp_path, said, shape, other):
    """Not their product alone: rows of [2, 3] are no rows of [3, 2]."""
    out = 'out = { shape = ["num_tokens", "hidden_size"], dtype = "dtype" }'
    taken = edited(tmp_path, *SPREAD, (out, f'out = {{ {said}, dtype = "dtype" }}'))
    assert taken.axes_of(call(Tensor(*shape), Tensor(2, 3, 8)))[0] == 6
    with pytest.raises(CallError) as caught:
        taken.axes_of(call(Tensor(*other), Tensor(2, 3, 8)))
    assert str(caught.value).startswith(f"good::x: argument 'out' has shape {other}, of which ")
    assert str(caught.value).endswith(" must be (2, 3), as of 'input'")


def test_sizes_of_an_argument_that_is_not_given_are_any(tmp_path):
    edits = (
        (RESIDUAL, 'shape = ["*num_tokens", "hidden_size"]'),
        (
            'out = { shape = ["num_tokens", "hidden_size"], dtype = "dtype" }',
            'out = { like = "residual" }',
        ),
    )
    taken = edited(tmp_path, *SPREAD, *edits)
    out, given, residual = Tensor(2, 3, 8), Tensor(6, 8), Tensor(2, 3, 8)
    assert taken.axes_of(call(out, given))[0] == 6
    assert taken.axes_of(call(out, given, residual))[0] == 6
    with pytest.raises(CallError, match=r"of which \(2, 3\) must be \(6,\), as of 'residual'"):
        taken.axes_of(call(out, given, Tensor(6, 8)))


def test_one_spread_size_of_one_takes_scalars_of_any_rank(tmp_path):
    """A scale of one element may have no, one or two dimensions."""
    taken = edited(tmp_path, (RESIDUAL, 'shape = ["*1"]'))
    for shape in ((), (1,), (1, 1)):
        assert taken.axes_of(call(residual=Tensor(*shape)))[-1] is True
    with pytest.raises(CallError, match=r"must have \(\*1\), from \[\*1\]"):
        taken.axes_of(call(residual=Tensor(2)))


def test_strides_may_be_expressions(tmp_path):
    """A stride is compared where there is more than one element along it."""
    taken = edited(tmp_path, ('strides = ["*", 1]', 'strides = ["hidden_size * 2", 1]'))
    assert taken.axes_of(call(input=Tensor(3, 8, strides=(16, 1))))[0] == 3
    assert taken.axes_of(call(Tensor(1, 8), Tensor(1, 8)))[0] == 1
    with pytest.raises(CallError, match=r"has strides \(8, 1\), and must have \(16, 1\)"):
        taken.axes_of(call())


def test_the_first_variant_whose_condition_holds_counts(tmp_path):
    """Variants are tried in their order; the last may be for all other calls."""
    variants = (
        'out = [{ when = "group == 4", shape = ["num_tokens", "hidden_size"], dtype = "dtype" },\n'
        '  { shape = ["hidden_size", "num_tokens"], dtype = "dtype" }]'
    )
    plain = 'out = { shape = ["num_tokens", "hidden_size"], dtype = "dtype" }'
    taken = edited(tmp_path, (plain, variants))
    assert taken.axes_of(call())[2] == 4
    assert taken.axes_of(call(out=Tensor(8, 3), group=2))[2] == 2
    with pytest.raises(CallError, match=r"must have \(8, 3\), from \[hidden_size, num_tokens\]"):
        taken.axes_of(call(group=2))


def test_a_tensor_that_no_variant_takes_is_refused(tmp_path):
    """An optional tensor is given only where [args] says so."""
    taken = edited(tmp_path, ('when = "has_residual"', 'when = "has_residual and num_tokens < 99"'))
    big = Tensor(99, 8)
    with pytest.raises(CallError) as caught:
        taken.axes_of(call(big, big, Tensor(99, 2, 4)))
    assert str(caught.value) == (
        "good::x: argument 'residual' is given, but is only allowed when "
        "'has_residual and num_tokens < 99'"
    )


def test_a_guard_may_read_arguments(tmp_path):
    """What [args] cannot say, a guard can; one that reads an absent argument does not hold."""
    old = "hidden_size % group == 0"
    taken = edited(tmp_path, (old, f"{old} and input.stride(0) % 16 == 0"))
    assert taken.axes_of(call(input=Tensor(3, 8, strides=(32, 1))))[1] == 8
    with pytest.raises(CallError, match=r"% 16 == 0' does not hold"):
        taken.axes_of(call())


def test_a_guard_that_reads_what_is_absent_does_not_hold(tmp_path):
    """It says so instead of a traceback; 'is None or' lets the call pass."""
    old = "hidden_size % group == 0"
    strict = edited(tmp_path / "a", (old, "residual.shape[0] == num_tokens"))
    with pytest.raises(CallError, match="does not hold"):
        strict.axes_of(call())
    loose = edited(tmp_path / "b", (old, "residual is None or residual.shape[9] == 1"))
    assert loose.axes_of(call())[0] == 3
    with pytest.raises(CallError, match="reads a dimension or an element that does not exist"):
        loose.axes_of(call(residual=Tensor(3, 2, 4)))


def contradicted(*edits):
    """Return the contradictions of the good kernel with other axes and arguments."""
    spec = read_kernel(GOOD, "x")
    axes = [evolve(a, expr=parse_expr(dict(edits).get(a.name, a.expr.text))) for a in spec.axes]
    cases = [case for grid in range(len(spec.grids)) for case in expand(spec, grid)]
    found = contradictions(evolve(spec, axes=tuple(axes)), cases)
    return {(axis, case.values[axis], told) for case, axis, told in found}


def other(axis, has, inputs):
    """What is said of a case whose inputs have another value of an axis."""
    return axis, has, f"its inputs have {axis}={inputs}; correct the case"


@pytest.mark.parametrize(
    ("edits", "want"),
    [
        ([], set()),
        ([("hidden_size", "input.shape[-1]")], set()),
        ([("hidden_size", "input.numel() // input.shape[0]")], set()),
        ([("num_tokens", "out.shape[0]"), ("dtype", "out.dtype")], set()),
        ([("hidden_size", "input.stride(0)")], set()),
        ([("hidden_size", "input.shape[1] + 1")], {other("hidden_size", n, n + 1) for n in (8, 64, 128)}),
        ([("num_tokens", "input.shape[1]")], {other("num_tokens", n, m) for n, m in ((1, 64), (1, 128), (16, 64), (16, 128), (0, 8), (3, 8))}),
        ([("group", "input.ndim")], {other("group", 4, 2)}),
        ([("group", "input.shape[2] * group")],
         {("group", 4, "axis 'group' = 'input.shape[2] * group' cannot be read: 'input' has 2 dimensions; correct the axis or [args]")}),
    ],
)  # fmt: skip
def test_inputs_that_have_other_axes_than_their_case(edits, want):
    """No call is such a case; what is read where it is made cannot differ."""
    assert contradicted(*edits) == want


def test_elements_of_a_list_are_read_and_one_that_is_not_there_is_told():
    """Its length is for a guard; what is read of a shorter one is said."""
    check = CallCheck(read_kernel(GOOD.parents[1] / "packs" / "kinds", "roll"), "kinds::roll")
    tensor = Tensor(3, 8, dtype="float32")
    assert check.axes_of([tensor, [2, 7]]) == (3, 8, 2, 7)
    for shifts, message in (
        ([2], "axis right = 'shifts[1]' cannot be read: 'shifts' has 1 element"),
        ([2, 7, 1], "guard 'len(shifts) == 2' does not hold"),
        ([2, 8], "guard 'right < width' does not hold (right = 8, width = 8)"),
    ):
        with pytest.raises(CallError) as caught:
            check.axes_of([tensor, shifts])
        assert str(caught.value) == f"kinds::roll: {message}"


def test_facts_of_a_tensor_are_those_of_pytorch():
    """Along sizes of 1, and where there is nothing, no step is made."""
    facts = [
        (((2, 3), (3, 1)), True),
        (((2, 3), (4, 1)), False),
        (((1, 3), (99, 1)), True),
        (((0, 3), (1, 7)), True),
        (((), ()), True),
    ]
    for (shape, strides), contiguous in facts:
        tensor = TensorFacts(shape=shape, strides=strides, dtype="int8")
        assert (tensor.is_contiguous(), tensor.ndim) == (contiguous, len(shape))
