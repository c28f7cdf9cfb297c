"""`new`: what it writes, where, under which names, and that it writes all or nothing."""

from __future__ import annotations

import json

import pytest

from kernelpkg import cli
from kernelpkg.cli import new
from kernelpkg.cli.new import new_kernel
from kernelpkg.errors import UsageError
from kernelpkg.manifest.cases import cases_of
from kernelpkg.packs.read import read_kernel, read_pack


def files(root):
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def test_a_new_pack_is_complete_and_sound(tmp_path):
    root = tmp_path / "deep" / "My-Pack"
    made = new_kernel(root, "softmax", make_pack=True)
    assert (
        sorted(made.files)
        == files(root)
        == [
            "__init__.py",
            "kernels/kernel.schema.json",
            "kernels/softmax/host.py",
            "kernels/softmax/kernel.py",
            "kernels/softmax/kernel.toml",
            "manifests/my_pack.toml",
            "manifests/pack.schema.json",
        ]
    )
    assert made.remarks == ()
    pack = read_pack(root, "my_pack")
    assert (pack.namespace, pack.kernels) == ("my_pack", ("softmax",))
    assert len(cases_of(read_kernel(root, "softmax"), "tune")) == 8


def test_a_new_kernel_joins_the_pack_that_is_there(demo):
    before = files(demo.root)
    made = new_kernel(demo.root, "softmax", make_pack=True)
    assert sorted(set(files(demo.root)) - set(before)) == sorted(made.files)
    assert read_pack(demo.root, "demo").kernels == ("softmax", "twice")


def test_of_several_packs_one_that_takes_all_is_enough(demo):
    text = (demo.root / "manifests/demo.toml").read_text()
    (demo.root / "manifests/other.toml").write_text(text.replace('"*"', '["twice"]'))
    assert new_kernel(demo.root, "softmax", make_pack=False).remarks == ()


def test_a_broken_pack_manifest_stands_not_in_the_way(demo):
    (demo.root / "manifests/demo.toml").write_text("[")
    assert new_kernel(demo.root, "softmax", make_pack=False).remarks == ()


@pytest.mark.parametrize(
    ("directory", "name"),
    [("aten", "pack_aten"), ("2go", "pack_2go"), ("class", "pack_class"), ("ä", "pack"),
     ("kernelpkg", "pack_kernelpkg"), ("Äpfel", "pfel")],
)  # fmt: skip
def test_a_pack_is_named_like_its_directory_where_that_is_a_name(tmp_path, directory, name):
    made = new_kernel(tmp_path / directory, "softmax", make_pack=True)
    assert made.files[0] == f"manifests/{name}.toml"
    assert read_pack(tmp_path / directory, name).namespace == name


FORM = "use letters, digits and underscores, and no keyword of Python"


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("", FORM),
        ("soft-max", FORM),
        ("2max", FORM),
        ("sömax", FORM),
        ("a/b", FORM),
        ("..", FORM),
        ("softmax\n", FORM),
        ("class", FORM),
        ("match", FORM),
        ("torch", "kernel.py imports a module of that name; choose another"),
        ("hl", "kernel.py imports a module of that name; choose another"),
        ("name", "torch.ops.<namespace>.name is the name of the namespace; choose another"),
    ],
)
def test_a_name_that_names_no_kernel_is_refused(demo, name, why):
    before = files(demo.root)
    with pytest.raises(UsageError) as caught:
        new_kernel(demo.root, name, make_pack=True)
    assert str(caught.value) == f"'{name}' is not a name for a kernel; {why}"
    assert files(demo.root) == before


def test_a_name_that_is_taken_is_refused(demo):
    before = files(demo.root)
    with pytest.raises(UsageError) as caught:
        new_kernel(demo.root, "twice", make_pack=True)
    assert str(caught.value) == (
        f"{demo.root}/kernels/twice already exists; choose another name, or remove it"
    )
    assert files(demo.root) == before


def test_a_dangling_link_is_taken_too(demo):
    (demo.root / "kernels/softmax").symlink_to("nowhere")
    with pytest.raises(UsageError, match="already exists"):
        new_kernel(demo.root, "softmax", make_pack=True)


def test_where_it_cannot_be_written_nothing_is_left(tmp_path, monkeypatch):
    def refuse(target, texts):
        raise PermissionError(13, "Permission denied", str(target))

    monkeypatch.setattr(new, "_write_directory", refuse)
    with pytest.raises(UsageError) as caught:
        new_kernel(tmp_path / "mine", "softmax", make_pack=True)
    assert str(caught.value) == (
        f"{tmp_path}/mine/kernels/softmax cannot be written: Permission denied"
    )
    assert files(tmp_path) == []


def test_a_disk_that_fills_up_leaves_no_half_kernel(demo, monkeypatch):
    before = files(demo.root)

    def full(source, target):
        raise OSError(28, "No space left on device", str(target))

    monkeypatch.setattr("pathlib.Path.rename", full)
    with pytest.raises(UsageError, match="cannot be written: No space left on device"):
        new_kernel(demo.root, "softmax", make_pack=False)
    assert files(demo.root) == before
    assert sorted(path.name for path in (demo.root / "kernels").iterdir()) == ["twice"]


def test_a_failure_of_the_system_names_the_kernel(demo, monkeypatch):
    """Where it says of no file that the disk is full."""

    def full(path, *_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_text", full)
    with pytest.raises(UsageError) as caught:
        new_kernel(demo.root, "softmax", make_pack=False)
    place = demo.root / "kernels/softmax"
    assert str(caught.value) == f"{place} cannot be written: No space left on device"


def test_others_may_read_what_was_written(demo):
    new_kernel(demo.root, "softmax", make_pack=False)
    mode = (demo.root / "kernels/softmax").stat().st_mode & 0o777
    assert mode == (demo.root / "kernels/twice").stat().st_mode & 0o777


def run(*arguments: object) -> int:
    return cli.main([str(argument) for argument in arguments])


def test_new_says_what_it_wrote_and_how_to_check_it(tmp_path, capsys):
    root = tmp_path / "mine"
    assert run("new", "softmax", "--root", root) == 0
    assert capsys.readouterr() == (
        (
            f"wrote {root}/manifests/mine.toml\n"
            f"wrote {root}/kernels/kernel.schema.json\n"
            f"wrote {root}/manifests/pack.schema.json\n"
            f"wrote {root}/__init__.py\n"
            f"wrote {root}/kernels/softmax/kernel.toml\n"
            f"wrote {root}/kernels/softmax/kernel.py\n"
            f"wrote {root}/kernels/softmax/host.py\n"
            f"test it with: python -m kernelpkg test --root {root}\n"
        ),
        "",
    )


USING = "using pack demo in ../.., which the current directory lies in\n"


@pytest.mark.parametrize(
    ("below", "first", "root"),
    [
        (".", "", "."),
        (
            "kernels/twice",
            "using pack demo in ../.., which the current directory lies in\n",
            "../..",
        ),
    ],
    ids=["at-the-root", "below-it"],
)
def test_new_needs_no_root_in_a_pack(demo, capsys, monkeypatch, below, first, root):
    """A pack further up is named."""
    monkeypatch.chdir(demo.root / below)
    assert run("new", "softmax") == 0
    directory = "kernels/softmax" if root == "." else f"{root}/kernels/softmax"
    assert capsys.readouterr().out == (
        f"{first}wrote {directory}/kernel.toml\n"
        f"wrote {directory}/kernel.py\n"
        f"wrote {directory}/host.py\n"
        f"test it with: python -m kernelpkg test --root {root}\n"
    )
    assert read_pack(demo.root, "demo").kernels == ("softmax", "twice")


def test_new_goes_up_no_further_than_the_repository(demo, capsys, monkeypatch):
    inner = demo.root / "vendored/repository"
    (inner / ".git").mkdir(parents=True)
    monkeypatch.chdir(inner)
    assert run("new", "softmax") == 2
    assert capsys.readouterr().err.startswith(f"kernelpkg: {inner} holds no pack")
    assert not (demo.root / "kernels/softmax").exists()


def test_new_json_names_the_files(demo, capsys):
    demo.edit("manifests/demo.toml", '"*"', '["twice"]')
    assert run("new", "softmax", "--json", "--root", demo.root) == 0
    assert json.loads(capsys.readouterr().out) == {
        "format": 1,
        "root": str(demo.root),
        "packs": ["demo"],
        "files": [
            "kernels/softmax/kernel.toml",
            "kernels/softmax/kernel.py",
            "kernels/softmax/host.py",
        ],
        "remarks": ['add "softmax" to [pack] kernels in manifests/demo.toml, which is not "*"'],
    }


def test_new_outside_of_a_pack_is_wrong_usage(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run("new", "softmax") == 2
    assert capsys.readouterr() == (
        "",
        (
            f"kernelpkg: {tmp_path} holds no pack (manifests/<pack>.toml); go to one, or give "
            "--root DIR to make one there\n"
        ),
    )
    assert list(tmp_path.iterdir()) == []
