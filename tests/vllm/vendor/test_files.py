"""What a run does to each file of a tree, what it refuses to touch, and the record of all."""

from __future__ import annotations

import json
import os

import pytest
from attrs import evolve

from kernelpkg.errors import PackError
from kernelpkg.files import digest_bytes
from kernelpkg.vllm.vendor.files import (
    Record,
    TreeStep,
    read_record,
    record_path,
    shared_path,
    steps_for,
    wrong_place,
)

OP = "vllm/kernels/helion/ops/x.py"
CONFIG = "vllm/kernels/helion/configs/x/nvidia_h200.json"


def step(before, after, *, recorded=False, ours=False):
    return TreeStep(
        path=OP,
        before=None if before is None else before.encode(),
        after=None if after is None else after.encode(),
        recorded=recorded,
        ours=ours,
    )


OURS = {"recorded": True, "ours": True}
TAKE_OVER = "was edited since it was vendored; move the edit into the pack"
NOT_OURS = (
    "holds configs of another source for an op of this pack, whose lists and keys would not fit it"
)
EDITED = {"recorded": True, "ours": False}
STEPS = {
    "new": (step(None, "a"), "wrote", None, "missing"),
    "new again": (step(None, "a", **EDITED), "wrote", None, "missing"),
    "as it shall be": (step("a", "a"), "kept", None, None),
    "out of date": (step("a", "b", **OURS), "wrote", None, "outdated"),
    "edited": (
        step("a", "b", **EDITED), "wrote",
        ("KP807", f"{TAKE_OVER}; replace=True overwrites it"),
        "edited",
    ),
    "another's": (
        step("a", "b"), "wrote",
        ("KP806", "already exists, and is not of this pack; replace=True overwrites it"),
        "foreign",
    ),
    "no longer in the pack": (step("a", None, **OURS), "removed", None, "orphaned"),
    "no longer in the pack, and edited": (
        step("a", None, **EDITED), "removed",
        ("KP807", f"{TAKE_OVER}; replace=True removes it"),
        "orphaned",
    ),
    "another's config": (
        step("a", None), "removed",
        ("KP806", f"{NOT_OURS}; replace=True removes it"),
        "foreign",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("found", "action", "conflict", "drift"), STEPS.values(), ids=STEPS)
def test_steps(found, action, conflict, drift):
    """What is done, what stands in the way, and what a check says."""
    assert (found.action, found.conflict, found.drift) == (action, conflict, drift)


def test_diffs_are_those_of_patch():
    """Of new, changed and removed files, also without a last newline; a kept one has none."""
    assert list(step(None, "a\n").diff()) == [
        "--- /dev/null", f"+++ b/{OP}", "@@ -0,0 +1 @@", "+a",
    ]  # fmt: skip
    assert list(step("a\nb", "a\nc\n").diff()) == [
        f"--- a/{OP}", f"+++ b/{OP}", "@@ -1,2 +1,2 @@", " a", "-b",
        "\\ No newline at end of file", "+c",
    ]  # fmt: skip
    assert list(step("a\x0cb\n", None).diff()) == [
        f"--- a/{OP}", "+++ /dev/null", "@@ -1 +0,0 @@", "-a\x0cb",
    ]  # fmt: skip
    assert list(step("a", "a").diff()) == []
    binary = TreeStep(path=OP, before=b"\xff", after=b"a", recorded=True, ours=True)
    assert list(binary.diff()) == [f"Binary files a/{OP} and b/{OP} differ"]


def record(**files):
    return Record(pack="demo", version="1", kernelpkg="1", kernels={}, files=files)


def put(root, path, text="text"):
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text)


def test_every_file_in_question_has_a_step(tmp_path):
    """Those that are wanted or recorded, and config files of our ops."""
    other, gone = CONFIG.replace("h200", "b200"), OP.replace("x.py", "gone.py")
    kept = OP.replace("x.py", "kept.py")
    for path in (OP, other, kept, CONFIG.replace("/x/", "/other/")):
        put(tmp_path, path)
    put(tmp_path, CONFIG.replace("h200.json", "h200.txt"))
    old = record(**{OP: digest_bytes(b"text"), gone: digest_bytes(b"")})
    found = steps_for(tmp_path, ["x"], {OP: "new", kept: "text"}, old)
    assert [(s.path, s.action, s.recorded, s.ours) for s in found] == [
        (other, "removed", False, False),
        (kept, "kept", False, False),
        (OP, "wrote", True, True),
    ]


def test_what_a_killed_run_did_not_come_to_is_not_ours(tmp_path):
    """A file that it was about to replace is told as another's, and stays if it is not wanted."""
    gone, done = OP.replace("x.py", "gone.py"), OP.replace("x.py", "done.py")
    for path in (OP, gone, done):
        put(tmp_path, path)
    about = {OP: digest_bytes(b"new"), gone: digest_bytes(b"new"), done: digest_bytes(b"text")}
    old = evolve(record(), pending=about)
    found = steps_for(tmp_path, ["x"], {OP: "new"}, old)
    assert [(s.path, s.action, s.drift) for s in found] == [
        (done, "removed", "orphaned"),
        (OP, "wrote", "foreign"),
    ]


PLACES = {
    "a link in its place": (
        lambda root: (root / OP).symlink_to("/nowhere"),
        "is a link to /nowhere, which would be written through; remove it",
    ),
    "a directory in its place": (lambda root: (root / OP).mkdir(), "is a directory; remove it"),
    "a pipe in its place": (lambda root: os.mkfifo(root / OP), "is not a regular file; remove it"),
    "a package of its name": (
        lambda root: (root / OP).with_suffix("").mkdir(),
        "would be hidden by the package x/ beside it; remove that",
    ),
}


@pytest.mark.parametrize(("make", "want"), PLACES.values(), ids=PLACES)
def test_places_that_are_taken_otherwise(tmp_path, make, want):
    (tmp_path / OP).parent.mkdir(parents=True)
    make(tmp_path)
    with pytest.raises(PackError) as caught:
        steps_for(tmp_path, ["x"], {OP: "new"}, None)
    assert str(caught.value) == f"{OP}: KP808 {want}"


def test_links_are_not_followed_out_of_the_tree(tmp_path):
    """One that stays inside is as good as a directory."""
    (tmp_path / "outside").mkdir()
    helion = tmp_path / "tree/vllm/kernels/helion"
    (helion / "real").mkdir(parents=True)
    (helion / "ops").symlink_to("real")
    assert wrong_place(tmp_path / "tree", OP) is None
    (helion / "configs").symlink_to(tmp_path / "outside")
    assert wrong_place(tmp_path / "tree", CONFIG) == (
        f"vllm/kernels/helion/configs is a link out of the tree, to {tmp_path / 'outside'}; name "
        "that tree"
    )
    (tmp_path / "link").symlink_to("tree")
    assert wrong_place(tmp_path / "link", OP) is None
    os.unlink(helion / "configs")
    (helion / "configs").symlink_to("around")
    (helion / "around").symlink_to("configs")
    assert (
        wrong_place(tmp_path / "tree", CONFIG)
        == "vllm/kernels/helion/configs is not a directory; remove it"
    )
    os.unlink(helion / "ops")
    (helion / "ops").write_text("")
    assert (
        wrong_place(tmp_path / "tree", OP)
        == "vllm/kernels/helion/ops is not a directory; remove it"
    )


SHOWN = "vllm/kernels/helion/demo.vendored.json"
ONE, TWO, THREE = (f"sha256-{digit * 64}" for digit in "123")
RECORD = Record(
    pack="demo",
    version="0.1.0",
    kernelpkg="0.1.0",
    kernels={"x": {"version": 1, "kernel.toml": ONE}},
    files={OP: ONE, CONFIG: TWO, shared_path("demo"): THREE},
)


def write(root, text):
    path = root / SHOWN
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text if isinstance(text, str) else json.dumps(text))


def test_a_record_reads_as_it_was_written(tmp_path):
    """Paths and kernels are sorted, so that one state of a pack has one text."""
    assert record_path("demo") == SHOWN
    write(tmp_path, RECORD.text())
    found = read_record(tmp_path, "demo")
    assert found == RECORD
    assert RECORD.text() == (
        '{\n  "edition": 1,\n  "pack": "demo",\n  "version": "0.1.0",\n  "kernelpkg": "0.1.0",\n'
        '  "kernels": {\n    "x": {\n      "version": 1,\n'
        f'      "kernel.toml": "{ONE}"\n    }}\n  }},\n'
        f'  "files": {{\n    "{CONFIG}": "{TWO}",\n    "{shared_path("demo")}": "{THREE}",\n'
        f'    "{OP}": "{ONE}"\n  }}\n}}\n'
    )


def test_no_record_is_none(tmp_path):
    assert read_record(tmp_path, "demo") is None


def test_a_file_is_ours_with_either_digest():
    """A run that was killed left some files as before, and others as they shall be."""
    record = Record(
        pack="demo", version="1", kernelpkg="1", kernels={}, files={OP: ONE}, pending={OP: TWO}
    )
    assert [record.ours(OP, digest) for digest in (ONE, TWO, THREE)] == [True, True, False]
    assert not record.ours(CONFIG, ONE)
    assert json.loads(record.text())["pending"] == {OP: TWO}


def changed(**fields):
    return {**json.loads(RECORD.text()), **fields}


FOREIGN = {
    "no object": [],
    "no edition": changed(edition="1"),
    "another pack": changed(pack="other"),
    "no digest": changed(files={OP: "1"}),
    "no files": changed(files=[OP]),
    "no kernels": changed(kernels={"x": 1}),
    "a file elsewhere": changed(files={"vllm/envs.py": ONE}),
    "a file above": changed(files={"vllm/kernels/helion/ops/../../x.py": ONE}),
    "the package itself": changed(pending={"vllm/kernels/helion/ops/__init__.py": ONE}),
    "what another pack's ops share": changed(files={shared_path("other"): ONE}),
    "no place in ASCII": changed(files={OP.replace("x.py", "xé.py"): ONE}),
    "configs above": changed(files={"vllm/kernels/helion/configs/../x.json": ONE}),
}


@pytest.mark.parametrize("text", [*FOREIGN.values(), "{"], ids=[*FOREIGN, "no json"])
def test_a_record_that_is_none_is_not_believed(tmp_path, text):
    """Files that it names would be removed, so that it must name none but ours."""
    write(tmp_path, text)
    what = "the record is not JSON" if text == "{" else "the record is not one of pack 'demo'"
    with pytest.raises(PackError) as caught:
        read_record(tmp_path, "demo")
    assert str(caught.value) == f"{SHOWN}: KP805 {what}; remove it, and give replace=True"


def test_a_newer_record_is_left_alone(tmp_path):
    write(tmp_path, changed(edition=2))
    with pytest.raises(PackError) as caught:
        read_record(tmp_path, "demo")
    assert str(caught.value) == (
        f"{SHOWN}: KP805 the record is of edition 2, and this kernelpkg reads 1; upgrade kernelpkg"
    )


def test_a_record_that_cannot_be_read_is_told(tmp_path):
    (tmp_path / SHOWN).mkdir(parents=True)
    with pytest.raises(PackError) as caught:
        read_record(tmp_path, "demo")
    assert str(caught.value) == (
        f"{SHOWN}: KP805 the record cannot be read: Is a directory; remove it, and give "
        "replace=True"
    )
