"""A kernel of Helion's form as one of a pack: what is taken, what is said, what is refused."""

from __future__ import annotations

import ast
import textwrap
import tomllib
from pathlib import Path

import pytest

from kernelpkg.cli.new import new_kernel
from kernelpkg.errors import UsageError
from kernelpkg.from_helion.kernel import take_kernel
from kernelpkg.from_helion.sizes import Sizes
from kernelpkg.manifest.cases import cases_of
from kernelpkg.packs.read import read_kernel

EXAMPLES = Path(__file__).parents[1] / "fixtures" / "helion_examples.py"
CASES = {
    "two_pass": 8, "norm": 8, "linear": 4, "scores": 4, "add": 4, "pick_rows": 4, "scale_into": 8,
}  # fmt: skip
HEAD = "import helion\nimport helion.language as hl\nimport torch\n\n\n"


def manifest(taken):
    return tomllib.loads(taken.files["kernel.toml"])


@pytest.fixture
def take(tmp_path):
    """Take the last function of a source."""

    def taken(source, head=HEAD):
        path = tmp_path / "given.py"
        path.write_text(head + textwrap.dedent(source).lstrip("\n"))
        last = ast.parse(path.read_text()).body[-1]
        found = take_kernel(f"{path}:{last.name}")
        remarks = tuple(line.removeprefix(f"{tmp_path}/") for line in found.remarks)
        return found, remarks

    return taken


@pytest.mark.parametrize("name", CASES)
def test_a_kernel_that_is_taken_has_no_problems(tmp_path, name):
    taken = take_kernel(f"{EXAMPLES}:{name}")
    made = new_kernel(tmp_path, name, make_pack=True, taken=taken)
    assert made.remarks == taken.remarks
    assert len(cases_of(read_kernel(tmp_path, name), "tune")) == CASES[name]


def test_the_manifest_is_what_an_author_would_begin_with():
    text = take_kernel(f"{EXAMPLES}:norm").files["kernel.toml"]
    assert text == textwrap.dedent("""\
        #:schema ../kernel.schema.json
        edition = 1

        [kernel]
        name = "norm"
        version = 1
        summary = "Return the RMS norm of each row, and by what it was scaled."

        [op]
        schema = "(Tensor x, Tensor weight, float eps=1e-05) -> (Tensor, Tensor)"
        fake_impl = "infer"

        [helion]
        settings = { ignore_warnings = ["TensorOperationInWrapper"] }

        [axes]
        m = "x.shape[0]"
        n = "x.shape[1]"
        dtype = "x.dtype"

        [guard]
        when = ["dtype in [bfloat16, float16, float32]"]

        [[key]]
        axis = "dtype"
        match = "exact"
        [[key]]
        axis = "n"
        match = "nearest"
        [[key]]
        axis = "m"
        match = "ceil"

        [inputs]
        default = { dtype = "bfloat16" }
        [[inputs.grid]]
        use = ["tune", "bench"]
        n = [1024, 4096]
        m = [1, 16, 256, 4096]
        [[inputs.grid]]
        use = ["test"]
        n = [32]
        m = [1, 17]

        [args]
        x = { shape = ["m", "n"], dtype = "dtype" }
        weight = { shape = ["n"], dtype = "dtype" }

        [accuracy]
        return = { rtol = 1e-2, atol = 1e-2 }
        """)


def test_the_source_keeps_what_the_function_needs_of_its_file():
    text = take_kernel(f"{EXAMPLES}:scale_into", "halve").files["kernel.py"]
    tree = ast.parse(text)
    assert ast.get_docstring(tree) == "The Helion function of halve."
    assert [node.name for node in tree.body if isinstance(node, ast.FunctionDef)] == [
        "halved", "store_rows", "scale_into",
    ]  # fmt: skip
    assert "HALF = 0.5\n" in text
    assert "Callable" not in text
    assert "@" not in text


def test_what_an_op_cannot_have_gives_way_to_its_default():
    taken = take_kernel(f"{EXAMPLES}:linear")
    text, source = manifest(taken), taken.files["kernel.py"]
    assert text["op"]["schema"] == (
        "(Tensor x, Tensor w, Tensor? bias=None, float factor=1.0) -> Tensor"
    )
    assert "\nepilogue = lambda total: torch.relu(total) + 0.0\n" in source
    assert "    bias: torch.Tensor | None = None,\n    factor: float = 1.0,\n" in source
    assert text["helion"] == {
        "settings": {"autotune_config_overrides": {"range_unroll_factors": [0, 0]}},
        "default": {"block_sizes": [32, 32, 16], "num_warps": 8},
    }
    assert text["axes"]["has_bias"] == "bias is not None"
    assert text["args"]["bias"] == {"when": "has_bias", "shape": ["n"], "dtype": "dtype"}
    lines = [line.removeprefix(f"{EXAMPLES}:") for line in taken.remarks]
    assert lines == [
        (
            "65: setting 'static_shapes' is left out; kernelpkg sets it: one code serves all sizes "
            "but those of [helion] specialize"
        ),
        (
            "66: 'loop_orders' of the config is a list, which optional and constant arguments "
            "shift; tune the kernel, or write a config file"
        ),
        (
            "68: setting 'autotune_baseline_fn' is left out, as it is not a literal; write it into "
            "[helion] settings if TOML can say it"
        ),
        "74: argument 'epilogue' is none that an op has; its default takes its place, in kernel.py",
        "kernels/linear/host.py: the reference is left to you",
        (
            "kernels/linear/kernel.toml: guessed, as the source does not say: the dtype of 'w', "
            "'bias' (that of 'x'); "
            "that 'x', 'w' are contiguous ('strides' in [args] allows more)"
        ),
    ]


def test_lists_of_a_config_are_taken_where_all_calls_have_them_in_common(take):
    config = "config=helion.Config(block_sizes=[32], indexing=['pointer', 'pointer'], num_warps=8)"
    body = """) -> torch.Tensor:
            out = torch.empty_like(x)
            for t in hl.tile(x.size(0)):
                out[t] = x[t] + 1
            return out
    """
    found, _ = take(f"""
        @helion.kernel({config})
        def f(x: torch.Tensor{body}""")
    assert manifest(found)["helion"]["default"] == {
        "block_sizes": [32], "indexing": ["pointer", "pointer"], "num_warps": 8,
    }  # fmt: skip
    found, remarks = take(f"""
        @helion.kernel({config})
        def f(x: torch.Tensor, y: torch.Tensor = None{body}""")
    assert manifest(found)["helion"]["default"] == {"block_sizes": [32], "num_warps": 8}
    assert "which optional and constant arguments shift" in "".join(remarks)


def test_an_argument_that_is_none_by_default_is_optional(take):
    """`x: str = None` is how much code says it; the value None is left where it was."""
    found, _ = take("""
        def f(x: torch.Tensor, mode: str = None) -> torch.Tensor:
            out = torch.empty_like(x)
            for t in hl.tile(x.size(0)):
                out[t] = -x[t] if mode == "half" else x[t]
            return out
    """)
    text = manifest(found)
    assert text["op"]["schema"] == "(Tensor x, str? mode=None) -> Tensor"
    assert text["guard"]["when"][1:] == ["mode is None or mode in ['half']"]


def test_constants_are_axes_with_the_values_that_the_function_knows(take, tmp_path):
    """A type is that of a default, or told by use; texts are those that it is compared with."""
    found, remarks = take("""
        def f(x: torch.Tensor, mode: str, taps: hl.constexpr, flip: hl.constexpr,
              kind: hl.constexpr, end: hl.constexpr = "none") -> torch.Tensor:
            out = torch.empty_like(x)
            for t in hl.tile(x.size(0)):
                y = x[t] * taps
                if mode == "half" or "none" != mode:
                    y = -y if flip else y
                elif kind in ("up", "down"):
                    y = y + 1
                out[t] = y
            return out
    """)
    text = manifest(found)
    assert text["op"]["schema"] == (
        "(Tensor x, str mode, int taps, bool flip, str kind, str end='none') -> Tensor"
    )
    names = ["mode", "taps", "flip", "kind", "end"]
    assert {name: text["axes"][name] for name in names} == {name: name for name in names}
    assert text["key"][0] == {"axis": ["dtype", *names], "match": "exact"}
    assert text["guard"]["when"][1:] == ["mode in ['half', 'none']", "kind in ['up', 'down']"]
    assert text["inputs"]["default"] == {
        "dtype": "bfloat16", "mode": "half", "taps": 16, "flip": False, "kind": "up", "end": "none",
    }  # fmt: skip
    tests = text["inputs"]["grid"][1]
    assert [tests.get(name) for name in names] == [
        ["half", "none"], None, [False, True], ["up", "down"], None,
    ]  # fmt: skip
    assert "mode: str, taps: hl.constexpr, flip: hl.constexpr," in found.files["kernel.py"]
    args = '    taps: int,\n    flip: bool,\n    kind: str,\n    end: str = "none",\n'
    assert args in found.files["host.py"]
    assert remarks[-1] == (
        "kernels/f/kernel.toml: guessed, as the source does not say: the value of 'taps' (16)"
    )
    directory = tmp_path / "kernels" / "f"
    directory.mkdir(parents=True)
    for name, content in found.files.items():
        (directory / name).write_text(content)
    assert read_kernel(tmp_path, "f").key_axes[:-1] == ("dtype", *names)


def test_a_list_has_as_many_elements_as_are_read(take):
    found, remarks = take("""
        def f(x: torch.Tensor, shifts: list[int], pads: list[int]) -> torch.Tensor:
            out = torch.empty_like(x)
            before, after = pads
            for t in hl.tile(x.size(0)):
                out[t] = x[t] * shifts[2] + before
            return out
    """)
    text = manifest(found)
    assert text["op"]["schema"] == "(Tensor x, int[] shifts, int[] pads) -> Tensor"
    assert text["args"]["shifts"] == [16, 16, 16]
    assert text["guard"]["when"][1:] == ["len(shifts) == 3", "len(pads) == 2"]
    assert remarks[-1].endswith(
        "the elements of 'shifts' ([16, 16, 16]); the elements of 'pads' ([16, 16])"
    )


def test_a_default_of_several_lines_is_a_constant_on_one(take):
    found, _ = take("""
        def f(x: torch.Tensor, last: Callable = lambda total,
              tile: total) -> torch.Tensor:
            return last(x.clone(), 0)
    """)
    assert "\nlast = lambda total, tile: total\n" in found.files["kernel.py"]


def test_any_sizes_in_front_are_their_product():
    text = manifest(take_kernel(f"{EXAMPLES}:scores"))
    assert text["axes"]["q_leading"] == "q.numel() // (q.shape[-2] * q.shape[-1])"
    assert text["args"]["k"]["shape"] == ["*q_leading", "n", "d"]
    assert text["helion"] == {"specialize": ["d"]}


def test_tensors_of_any_rank_have_as_many_elements():
    text = manifest(take_kernel(f"{EXAMPLES}:add"))
    assert text["axes"] == {"x_numel": "x.numel()", "dtype": "x.dtype"}
    assert {arg["shape"][0] for arg in text["args"].values()} == {"*x_numel"}


def test_indices_lie_below_what_they_index():
    taken = take_kernel(f"{EXAMPLES}:pick_rows")
    places = manifest(taken)["args"]["places"]
    assert places == {
        "shape": ["places_size_0"], "dtype": "int64", "init": "randint", "high": "table_size_0",
    }  # fmt: skip
    assert taken.remarks == (
        "kernels/pick_rows/host.py: the reference is left to you",
        (
            "kernels/pick_rows/kernel.toml: guessed, as the source does not say: that 'table' is "
            "contiguous ('strides' in [args] allows more)"
        ),
    )


def test_what_a_helper_writes_is_written():
    text = manifest(take_kernel(f"{EXAMPLES}:scale_into"))
    assert text["op"] == {
        "schema": "(Tensor(a!) out, Tensor x, float factor) -> ()", "fake_impl": "none",
    }  # fmt: skip
    assert text["args"]["out"]["shape"] == text["args"]["x"]["shape"]
    assert text["args"]["factor"] == 1.0
    assert list(text["accuracy"]) == ["out"]


@pytest.mark.parametrize(
    "store",
    [
        "out[i, j] = x[i, j]",
        "out[i, j] += x[i, j]",
        "hl.store(out, [i, j], x[i, j])",
        "hl.atomic_add(out, [i, j], x[i, j])",
        "flat[i, j] = x[i, j]",
    ],
)
def test_each_way_to_store_is_seen(take, store):
    found, _ = take(f"""
        def f(x: torch.Tensor, out: torch.Tensor) -> None:
            flat = out.view(x.shape)
            for i, j in hl.tile([x.size(0), x.size(1)]):
                {store}
    """)
    assert manifest(found)["op"]["schema"] == "(Tensor x, Tensor(a!) out) -> ()"


def test_what_others_are_handed_is_asked_for(take):
    _, remarks = take(
        """
        def f(x: torch.Tensor) -> torch.Tensor:
            out = torch.empty_like(x)
            prepare(x)
            for i in hl.tile(x.size(0)):
                out[i] = x[i]
            return out
        """,
        HEAD.replace("import torch", "import torch\nfrom elsewhere import prepare"),
    )
    assert remarks[:2] == (
        (
            "given.py:9: whether 'x' is written here cannot be told; if it is, write 'Tensor(a!) "
            "x' in [op] schema"
        ),
        (
            "given.py:4: 'elsewhere' is imported; a kernel may import torch, helion and the "
            "standard library, so copy what is needed of it into kernel.py"
        ),
    )


def test_a_returned_argument_is_said(take):
    _, remarks = take("""
        def f(x: torch.Tensor) -> torch.Tensor:
            for i in hl.tile(x.size(0)):
                x[i] = x[i] + 1
            return x.view(-1)
    """)
    assert remarks[0] == (
        "given.py:9: argument 'x' is returned, or a view of it, which an op must not; return a "
        "tensor of its own, or nothing where it is written"
    )


def test_asserted_sizes_become_guards_and_shapes(take):
    found, _ = take("""
        def f(x: torch.Tensor, packed: torch.Tensor, group: int) -> torch.Tensor:
            m, k = x.shape
            assert k % 16 == 0
            if packed.size(0) != k // 2:
                raise ValueError("sizes")
            assert x.dtype == torch.float8_e4m3fn and packed.ndim == 2
            out = torch.empty([m, k // group], dtype=torch.float32, device=x.device)
            for i, j in hl.tile([m, k // group]):
                out[i, j] = (packed[j, 0] & 15).sum()
            return out
    """)
    text = manifest(found)
    assert text["args"]["packed"] == {
        "shape": ["k // 2", "packed_size_1"], "dtype": "int8", "init": "randint", "high": 128,
    }  # fmt: skip
    assert text["args"]["x"] == {"shape": ["m", "k"], "dtype": "float8_e4m3fn"}
    assert text["guard"]["when"] == ["k % 16 == 0"]


def test_offsets_and_unknown_indices_are_zeros_until_their_author_says_more(take):
    found, remarks = take("""
        def f(x: torch.Tensor, ends: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
            rows = ends.size(0) - 1
            out = torch.zeros([rows], dtype=x.dtype, device=x.device)
            for r in hl.grid(rows):
                for t in hl.tile(ends[r], ends[r + 1]):
                    out[r] = x[t].sum() + x[labels[r] + 1]
            return out
    """)
    text = manifest(found)
    assert [text["args"][name]["init"] for name in ("ends", "labels")] == ["zeros", "zeros"]
    assert text["axes"]["ends_size_0"] == "ends.shape[0]"
    assert remarks[:2] == (
        (
            "given.py:6: 'ends' says where tiles begin and end, and is zeros in tests; write a "
            "function that makes it, as init"
        ),
        (
            "given.py:6: 'labels' holds indices into what cannot be told, and is zeros in tests; "
            'write init = "randint" with its high'
        ),
    )


def test_a_fake_implementation_that_cannot_be_inferred_is_left_to_the_author(take):
    found, remarks = take("""
        def f(x: torch.Tensor) -> torch.Tensor:
            out = hl.full([x.size(0)], 0.0, dtype=x.dtype)
            for t in hl.tile(x.size(0)):
                out[t] = x[t]
            return out
    """)
    assert manifest(found)["op"]["fake_impl"] == "host.py:fake"
    assert "def fake(x: torch.Tensor) -> torch.Tensor:" in found.files["host.py"]
    assert remarks[1] == (
        "kernels/f/host.py: the fake implementation is left to you: its results depend on hl.full"
    )


def test_all_that_no_op_has_is_refused_in_one_run(take, tmp_path):
    with pytest.raises(UsageError) as caught:
        take("""
            def f(x, sizes: list[float], *more: int) -> list[torch.Tensor]:
                return [x]
        """)
    assert str(caught.value).replace(f"{tmp_path}/", "").split("\n") == [
        "4 things to change first",
        "given.py:6: 'more' takes any arguments; an op has each by name",
        (
            "given.py:6: argument 'sizes' is 'list[float]', as none of an op; give it a default, "
            "which then takes its place"
        ),
        (
            "given.py:6: argument 'x' has no annotation; write torch.Tensor, int, float, "
            "bool or str, or '| None' behind one"
        ),
        (
            "given.py:6: the function returns 'list[torch.Tensor]'; an op returns None, "
            "torch.Tensor or a tuple of them"
        ),
    ]


@pytest.mark.parametrize("hint", ["torch.Tensor | None", "typing.Optional[torch.Tensor]"])
def test_a_result_that_may_be_none(take, tmp_path, hint):
    """The remedy is what an op of PyTorch can have in its place."""
    with pytest.raises(UsageError) as caught:
        take(f"""
            def f(x: torch.Tensor) -> tuple[torch.Tensor, {hint}]:
                return x.clone(), None
        """)
    assert str(caught.value).replace(f"{tmp_path}/", "").split("\n")[1] == (
        f"given.py:6: the function returns 'tuple[torch.Tensor, {hint}]'; let the op write an "
        "optional argument in place of a result that may be absent, as in 'Tensor(a!)? lse=None'"
    )


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ("none.py:f", "none.py cannot be read: No such file or directory"),
        ("given.py", "given.py: give the function too: 'given.py:norm', 'given.py:scale'"),
        ("given.py:nrm", "given.py has no function 'nrm' at its top level; did you mean 'norm'?"),
        ("given.py:zz", ("given.py has no function 'zz' at its top level; its kernels are "
         "'given.py:norm', 'given.py:scale'")),
        ("broken.py:f", "broken.py:1: does not parse: '(' was never closed"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_one_line(tmp_path, monkeypatch, given, why):
    monkeypatch.chdir(tmp_path)
    Path("given.py").write_text(
        "from helion import kernel\nimport helion as h\n\n\n@kernel\ndef norm(x): ...\n\n\n"
        "@h.experimental.aot_kernel()\ndef scale(x): ...\n\n\ndef plain(x): ...\n"
    )
    Path("broken.py").write_text("def f(")
    with pytest.raises(UsageError) as caught:
        take_kernel(given)
    assert str(caught.value) == why


def test_helpers_that_call_each_other_are_followed_a_while_only(take):
    """Ten functions of ten calls each would be read ten thousand times."""
    helpers = "".join(
        f"def h{place}(x):\n    return {' + '.join(f'h{other}(x)' for other in range(10))}\n\n\n"
        for place in range(10)
    )
    source = "def f(x: torch.Tensor) -> torch.Tensor:\n    return h0(x)\n"
    found, _ = take(f"{helpers}{source}")
    assert found.files["kernel.py"].count("def h") == 10


def test_the_file_is_never_run(take):
    found, _ = take("""
        raise SystemExit("this was run")


        def f(x: torch.Tensor) -> torch.Tensor:
            return x.clone()
    """)
    assert "SystemExit" not in found.files["kernel.py"]


@pytest.mark.parametrize("joined", [("x.1", "y.0"), ("y.0", "x.1")])
def test_of_the_names_of_a_size_the_first_comes_first(joined):
    """Helion's examples call the second one k2."""
    sizes = Sizes()
    sizes.call("x.1", "k")
    sizes.call("y.0", "k2")
    sizes.join(*joined)
    assert [*sizes.names[sizes.root("x.1")]] == ["k", "k2"]
