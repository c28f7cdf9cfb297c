"""Builds as values, their bytes, and what is said of one that is not as `build` wrote it."""

from __future__ import annotations

import errno
import json
import os
import resource
from pathlib import Path

import pytest
from attrs import evolve

from kernelpkg import __version__
from kernelpkg.errors import PackError
from kernelpkg.files import digest_bytes, digest_value
from kernelpkg.packs import builds
from kernelpkg.packs.builds import (
    INDEX,
    Build,
    BuiltKernel,
    BuiltPart,
    claimed,
    digests_of,
    dumps,
    find_builds,
    read_build,
    with_others,
    write_build,
)
from kernelpkg.packs.read import read_kernel, read_pack

BINARIES = {digest_bytes(data): data for data in (b"one", b"two", b"three")}
ONE, TWO, THREE = BINARIES


def code(digest: str) -> dict[str, object]:
    facts = {"types": ["*fp32"], "constants": {}, "divisible": [0], "parameters": [8]}
    return {**facts, "cubin": digest, "entry": "k", "shared": 0, "threads": 128}


def part(config: str, *digests: str, host: str = "def twice(input):\n    pass\n") -> BuiltPart:
    codes = tuple(map(code, digests))
    return BuiltPart(config=config, call_class="[]", host=host, kernel="k", codes=codes)


KERNEL = BuiltKernel(
    files={"kernel.py": ONE, "kernel.toml": TWO},
    exact={0: (True, False), 3: (False,)},
    facts={"[]": ("a0.shape[0] == 2", "a0.shape[1] // 2 == 1")},
    parts=(part('{"num_warps":4}', ONE, TWO), part('{"num_warps":8}', TWO)),
    absent=("has no inputs (case num_tokens=1)",),
)
BUILD = Build(
    pack="demo",
    platform="nvidia_h200",
    arch="sm_90",
    tools={"kernelpkg": __version__, "triton": "3.9.0"},
    pinned={"enable_fp_fusion": True},
    kernels={"twice": KERNEL},
)


OTHERWISE = "correct that, or name another directory with out=; nothing was changed"


def put(directory: Path, build: Build = BUILD) -> Path:
    write_build(build, directory, BINARIES.__getitem__)
    return directory


def said(step) -> str:
    with pytest.raises(PackError) as caught:
        step()
    (problem,) = caught.value.problems
    assert "\n" not in str(problem)
    return str(problem)


def listed(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def find_all(demo, given=(), environment=None, **options):
    pack = read_pack(demo.root, "demo")
    return find_builds(pack, "nvidia_h200", given, environment or {}, **options)


def find(demo, given=(), environment=None, **options) -> Build | None:
    """The best build, where nothing is wrong with others."""
    found, problems = find_all(demo, given, environment, **options)
    assert problems == ()
    return found[0] if found else None


def test_a_build_is_read_as_it_was_written(tmp_path):
    found = read_build(put(tmp_path / "build"))
    assert evolve(found, directory=Path(), digest="") == BUILD
    assert found.directory == tmp_path / "build"
    assert found.digest == json.loads((tmp_path / "build" / INDEX).read_text())["digest"]
    assert {name: found.cubin(name) for name in found.binaries()} == {
        name: BINARIES[name] for name in (ONE, TWO)
    }


def test_its_bytes_follow_from_the_value():
    """Whatever the order in which it was worked out."""
    kernels = {"b": KERNEL, "a": evolve(KERNEL, parts=KERNEL.parts[::-1])}
    one = evolve(BUILD, kernels=kernels)
    other = evolve(
        BUILD, kernels=dict(reversed(kernels.items())), tools=dict(reversed(BUILD.tools.items()))
    )
    assert dumps(one) == dumps(other)
    assert dumps(evolve(BUILD, arch="sm_89")) != dumps(BUILD)


def test_texts_that_parts_share_are_written_once():
    document = json.loads(dumps(BUILD))["kernels"]["twice"]
    assert document["hosts"] == [KERNEL.parts[0].host]
    assert [entry["host"] for entry in document["parts"]] == [0, 0]


def test_binaries_are_named_by_their_content_and_kept_once(tmp_path):
    directory = put(tmp_path / "build")
    assert listed(directory) == sorted([INDEX, ONE, TWO])
    assert (directory / ONE).read_bytes() == b"one"


def test_what_is_right_stays_and_what_is_old_goes(tmp_path):
    """Only binaries that are not there, or damaged, are made again."""
    directory = put(tmp_path)
    (directory / TWO).write_bytes(b"tw")
    (directory / "notes.txt").write_text("of a person")
    kernel = evolve(KERNEL, parts=(part("{}", ONE, TWO, THREE),))
    made = []
    size = write_build(
        evolve(BUILD, kernels={"twice": kernel}),
        directory,
        lambda name: made.append(name) or BINARIES[name],
    )
    assert sorted(made) == sorted([TWO, THREE])
    assert size == len(b"onetwothree")
    put(directory, evolve(BUILD, kernels={"twice": evolve(KERNEL, parts=(part("{}", THREE),))}))
    assert listed(directory) == sorted([INDEX, THREE, "notes.txt"])


DAMAGE = {
    "edited": (
        lambda text: text.replace('"sm_90"', '"sm_89"'),
        "KP321 was edited by hand, or damaged",
    ),
    "truncated": (lambda text: text[: len(text) // 2], "KP321 is damaged"),
    "empty": (lambda text: "", "KP321 is damaged"),
    "a list": (lambda text: "[]", "KP321 is damaged"),
    "deep": (lambda text: "[" * 100_000, "KP321 is damaged"),
    "without a digest": (lambda text: text.replace('"digest"', '"digests"', 1), "KP321 is damaged"),
    "not text": (lambda text: text.replace("demo", "\udcff"), "KP321 is damaged"),
    "newer": (
        lambda text: text.replace('"edition": 2', '"edition": 3'),
        "KP322 is of edition 3, and this kernelpkg reads 2",
    ),
    "of no edition": (lambda text: "{}", "KP322 is of edition None, and this kernelpkg reads 2"),
}


@pytest.mark.parametrize(("change", "problem"), DAMAGE.values(), ids=DAMAGE)
def test_an_index_that_is_not_as_it_was_written_is_one_line(tmp_path, change, problem):
    path = put(tmp_path) / INDEX
    path.write_bytes(change(path.read_text()).encode(errors="surrogateescape"))
    remedy = "run 'kernelpkg build' again, or restore it"
    assert said(lambda: read_build(tmp_path)) == f"{path}: {problem}; {remedy}"


def redigested(document) -> str:
    document.pop("digest")
    return json.dumps({**document, "digest": digest_value(document)})


@pytest.mark.parametrize(
    "spoil",
    [
        lambda document: document.pop("kernels"),
        lambda document: document["kernels"]["twice"].pop("parts"),
        lambda document: document["kernels"]["twice"]["parts"][0].update(host=7),
        lambda document: document["kernels"].update(twice=None),
        lambda document: document["kernels"]["twice"]["facts"].update({"[]": ["exit()"]}),
        lambda document: document["kernels"]["twice"]["facts"].update({"[]": [7]}),
        lambda document: document["kernels"]["twice"]["facts"].update({"[]": ["x.shape[0] == 1"]}),
        lambda document: document["kernels"]["twice"]["facts"].update({"[]": ["1 == 1"]}),
    ],
    ids=[
        "no kernels",
        "no parts",
        "no such host",
        "no kernel",
        "code",
        "no text",
        "no argument",
        "of nothing",
    ],
)
def test_an_index_with_a_right_digest_and_wrong_content_is_damaged(tmp_path, spoil):
    path = put(tmp_path) / INDEX
    document = json.loads(path.read_text())
    spoil(document)
    path.write_text(redigested(document))
    remedy = "run 'kernelpkg build' again, or restore it"
    assert said(lambda: read_build(tmp_path)) == f"{path}: KP321 is damaged; {remedy}"


def test_an_index_that_cannot_be_read_is_one_line(tmp_path):
    remedy = "run 'kernelpkg build' again, or restore it"
    path = tmp_path / INDEX
    missing = f"{path}: KP320 cannot be read: No such file or directory; {remedy}"
    assert said(lambda: read_build(tmp_path)) == missing
    path.mkdir()
    directory = f"{path}: KP320 cannot be read: Is a directory; {remedy}"
    assert said(lambda: read_build(tmp_path)) == directory
    path.rmdir()
    os.mkfifo(path)
    pipe = f"{path}: KP320 cannot be read: Not a regular file; {remedy}"
    assert said(lambda: read_build(tmp_path)) == pipe


def test_a_binary_that_is_damaged_or_missing_is_one_line(tmp_path):
    build = read_build(put(tmp_path))
    remedy = "run 'kernelpkg build' again, or restore it"
    (tmp_path / ONE).write_bytes(b"on")
    assert said(lambda: build.cubin(ONE)) == f"{tmp_path / ONE}: KP321 is damaged; {remedy}"
    (tmp_path / ONE).unlink()
    missing = f"{tmp_path / ONE}: KP320 cannot be read: No such file or directory; {remedy}"
    assert said(lambda: build.cubin(ONE)) == missing


UNFIT = {
    "another GPU": ({"arch": "sm_89"}, "is for sm_90, and this GPU is sm_89"),
    "an unknown GPU": ({"arch": None}, "is for sm_90, and this GPU is unknown"),
    "another kernel": ({"name": "thrice"}, "has no kernel 'thrice'"),
    "another source": (
        {"files": {"kernel.py": THREE, "kernel.toml": TWO}},
        "is of another kernel.py",
    ),
    "another manifest": (
        {"files": {"kernel.py": ONE, "kernel.toml": ONE}},
        "is of another kernel.toml",
    ),
    "no manifest": ({"files": {"kernel.py": ONE}}, "is of another kernel.toml"),
}


@pytest.mark.parametrize(("here", "problem"), UNFIT.values(), ids=UNFIT)
def test_a_build_says_why_it_does_not_fit(here, problem):
    fitting = {"arch": "sm_90", "name": "twice", "files": KERNEL.files}
    assert BUILD.problem(**fitting) is None
    assert BUILD.problem(**{**fitting, **here}) == problem


def test_a_build_that_names_no_files_fits_no_kernel():
    bare = evolve(BUILD, kernels={"twice": evolve(KERNEL, files={})})
    assert bare.problem("sm_90", "twice", KERNEL.files) == "is of another kernel.py"


def test_a_build_by_another_kernelpkg_does_not_fit():
    old = evolve(BUILD, tools={"kernelpkg": "0.0.9"})
    problem = f"is by kernelpkg 0.0.9, and this is {__version__}"
    assert old.problem("sm_90", "twice", KERNEL.files) == problem


def test_a_kernel_is_known_by_its_manifest_and_its_source(demo):
    """An edit of either, in any byte, is seen; a reference decides nothing of what is compiled."""
    before = digests_of(read_kernel(demo.root, "twice"))
    assert sorted(before) == ["kernel.py", "kernel.toml"]
    demo.edit("kernels/twice/host.py", "* 2", "* 2.0")
    assert digests_of(read_kernel(demo.root, "twice")) == before
    demo.edit("kernels/twice/kernel.py", "* 2", "*  2")
    demo.edit("kernels/twice/kernel.toml", "Twice", "Two times")
    after = digests_of(read_kernel(demo.root, "twice"))
    assert {name for name in before if before[name] != after[name]} == {*before}


def test_the_packs_own_build_is_found(demo):
    assert find(demo) is None
    own = put(demo.root / "builds/demo/nvidia_h200")
    assert find(demo).directory == own
    assert find(demo, environment={"KERNELPKG_BUILDS": ""}).directory == own


def test_without_an_own_build_those_for_other_gpus_of_the_architecture_are_found(demo):
    """A GPU borrows their configs, and digests and architecture say what fits."""
    other = put(demo.root / "builds/demo/nvidia_h100")
    put(demo.root / "builds/demo/nvidia_b200", evolve(BUILD, arch="sm_100"))
    (demo.root / "builds/demo/nvidia_h20").mkdir()
    (demo.root / "builds/demo/nvidia_h20" / INDEX).write_text("{")  # not of this GPU, nor told
    assert find(demo) is None
    assert find(demo, arch="sm_90").directory == other
    own = put(demo.root / "builds/demo/nvidia_h200")
    found, problems = find_all(demo, arch="sm_90")
    assert ([build.directory for build in found], problems) == ([own], ())
    digest = found[0].digest  # a lock that knows nothing of the other one keeps nothing from it
    assert find(demo, arch="sm_90", locked={"nvidia_h200": digest}).directory == own


def test_a_locked_build_that_is_gone_is_told(demo):
    """Calls are compiled then, which nobody would notice but by the time that it takes."""
    found, (problem,) = find_all(demo, locked={"nvidia_h200": "sha256-1"})
    own = demo.root / "builds/demo/nvidia_h200" / INDEX
    told = f"{own}: KP320 is locked, and is not there; restore it, or run 'kernelpkg lock'"
    assert (found, str(problem)) == ((), told)


@pytest.mark.parametrize("below", ["", "nvidia_h200", "demo/nvidia_h200"])
def test_a_directory_that_is_given_is_a_build_or_holds_those_of_platforms_or_packs(
    demo, tmp_path, below
):
    put(demo.root / "builds/demo/nvidia_h200")
    directory = put(tmp_path / "given" / below)
    assert find(demo, [tmp_path / "given"]).directory == directory
    assert find(demo, [str(tmp_path / "given")]).directory == directory
    environment = {"KERNELPKG_BUILDS": str(tmp_path / "given")}
    assert find(demo, environment=environment).directory == directory


def test_of_several_directories_the_first_that_has_a_build_is_taken(demo, tmp_path):
    (tmp_path / "empty").mkdir()
    first, second = put(tmp_path / "first/nvidia_h200"), put(tmp_path / "second")
    places = [tmp_path / name for name in ("missing", "empty", "first", "second")]
    environment = {"KERNELPKG_BUILDS": os.pathsep.join(map(str, places))}
    found, problems = find_all(demo, environment=environment)
    assert [build.directory for build in found] == [first, second]
    assert list(map(str, problems)) == [
        f"{places[0]}: KP320 is in KERNELPKG_BUILDS, and is not a directory; correct it"
    ]
    assert find(demo, places).directory == first
    assert find(demo, [places[3]], environment).directory == second


def test_directories_of_the_environment_may_have_builds_of_other_packs_alone(demo, tmp_path):
    foreign = put(tmp_path / "foreign", evolve(BUILD, pack="other"))
    environment = {"KERNELPKG_BUILDS": str(foreign)}
    assert find(demo, environment=environment) is None
    own = put(demo.root / "builds/demo/nvidia_h200")
    assert find(demo, environment=environment).directory == own


def test_a_build_that_is_damaged_hides_no_other(demo, tmp_path):
    """Every build that is as it should be is there, best first, and what is wrong is said."""
    spoiled, good = put(tmp_path / "spoiled"), put(tmp_path / "good")
    (spoiled / INDEX).write_text("{}")
    own = put(demo.root / "builds/demo/nvidia_h200")
    environment = {"KERNELPKG_BUILDS": f"{spoiled}{os.pathsep}{good}"}
    for given, variables in (([], environment), ([spoiled, good], {})):
        found, (problem,) = find_all(demo, given, variables)
        assert [build.directory for build in found] == [good, own]
        assert (problem.path, problem.code) == (f"{spoiled / INDEX}", "KP322")


def test_a_directory_that_is_given_must_have_a_build_of_the_pack(demo, tmp_path):
    put(demo.root / "builds/demo/nvidia_h200")
    assert said(lambda: find(demo, [tmp_path / "missing", tmp_path])) == (
        f"{tmp_path / 'missing'}: KP320 has no build of pack 'demo' for nvidia_h200; run "
        "'kernelpkg build' first"
    )
    foreign = put(tmp_path / "foreign", evolve(BUILD, pack="other"))
    assert said(lambda: find(demo, [foreign])) == (
        f"{foreign / INDEX}: KP323 is a build of pack 'other', and 'demo' is loaded; name the "
        "directory of another one"
    )


def test_a_build_that_was_not_locked_is_refused_where_a_lock_must_be_kept_to(demo, tmp_path):
    """A build that an operator names is the operator's business, as configs are."""
    own = put(demo.root / "builds/demo/nvidia_h200")
    digest = read_build(own).digest
    assert find(demo, locked={"nvidia_h200": digest}).digest == digest
    for locked in ({}, {"nvidia_h200": ONE}, {"nvidia_b200": digest}):
        assert said(lambda locked=locked: find(demo, locked=locked)) == (
            f"{own / INDEX}: KP304 is not the build that was locked; restore it, or run "
            "'kernelpkg lock'"
        )
    given = put(tmp_path / "given")
    assert find(demo, [given], locked={"nvidia_h200": digest}).directory == given


def test_kernels_that_are_not_built_now_are_kept_from_the_build_that_is_there(tmp_path):
    other = evolve(KERNEL, parts=(part("{}", THREE),))
    put(tmp_path, evolve(BUILD, kernels={"thrice": other, "gone": other, "twice": other}))
    assert with_others(BUILD, tmp_path, {"thrice"}).kernels == {"thrice": other, "twice": KERNEL}
    assert with_others(BUILD, tmp_path, set()) == BUILD
    assert with_others(BUILD, tmp_path / "missing", {"thrice"}) == BUILD


@pytest.mark.parametrize(
    "change",
    [{"tools": {"kernelpkg": "0"}}, {"arch": "sm_89"}, {"pack": "other"}, {"pinned": {}}],
    ids=["tools", "arch", "pack", "pinned"],
)
def test_kernels_that_were_made_otherwise_are_not_kept(tmp_path, change):
    put(tmp_path, evolve(BUILD, kernels={"thrice": KERNEL}, **change))
    assert with_others(BUILD, tmp_path, {"thrice"}) == BUILD


def test_kernels_whose_binaries_are_damaged_are_not_kept(tmp_path):
    put(tmp_path, evolve(BUILD, kernels={"thrice": KERNEL}))
    (tmp_path / ONE).write_bytes(b"")
    assert with_others(BUILD, tmp_path, {"thrice"}) == BUILD


def failed(directory: Path, why: str) -> str:
    return f"{directory}: KP324 cannot be written: {why}; {OTHERWISE}"


LARGER = evolve(BUILD, kernels={"twice": evolve(KERNEL, parts=(part("{}", ONE, THREE),))})


def test_a_full_disk_leaves_what_was_there(tmp_path):
    """A limit of the size of files stands for it: the index is larger than a binary."""
    directory = put(tmp_path / "build")
    before = {path.name: path.read_bytes() for path in directory.iterdir()}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        first = said(lambda: put(directory, LARGER))
        second = said(lambda: put(tmp_path / "made/build", LARGER))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert first == failed(directory, "File too large")
    assert second == failed(tmp_path / "made/build", "File too large")
    assert {path.name: path.read_bytes() for path in directory.iterdir()} == before
    assert listed(tmp_path) == ["build"]


def test_a_binary_that_is_lost_before_it_is_put_in_place_leaves_what_was_there(tmp_path):
    directory = put(tmp_path / "build")
    before = listed(directory)

    def made(name):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))

    assert said(lambda: write_build(LARGER, directory, made)) == failed(
        directory, "No such file or directory"
    )
    assert listed(directory) == before


def claim(directory: Path, pack: str = "demo") -> None:
    """Begin a build, and make none."""
    with claimed(directory, pack):
        pass


def test_two_builds_at_once_into_one_directory_are_one(tmp_path):
    """The second is refused; what was there stays, and of the first nothing but its build."""
    place = put(tmp_path / "build")
    before = listed(place)
    with claimed(place, "demo"):
        assert said(lambda: claim(place)) == (
            f"{place}: KP329 is being written by process {os.getpid()} on {os.uname().nodename}; "
            "wait for it to end, or name another one with out="
        )
        claim(tmp_path / "other")
    claim(place)
    assert listed(place) == before
    assert listed(tmp_path) == ["build"]


def test_a_directory_that_cannot_be_locked_cannot_be_written(tmp_path, monkeypatch):
    def no_locks(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("kernelpkg.files.fcntl.flock", no_locks)
    place = tmp_path / "build"
    assert said(lambda: claim(place)) == failed(place, "No locks available")
    assert listed(tmp_path) == []


def test_a_directory_that_cannot_be_written_is_known_before_a_build(tmp_path, monkeypatch):
    """Injected, for root may write anywhere."""
    claim(tmp_path / "not" / "there")
    assert listed(tmp_path) == []
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        found = said(lambda place=place: claim(place))
        assert found == failed(place, "Not a directory")
    asked = []
    monkeypatch.setattr(builds.os, "access", lambda path, mode: asked.append(path))
    place = tmp_path / "not" / "there"
    assert said(lambda: claim(place)) == failed(place, "Permission denied")
    assert asked == [tmp_path]


def spoil(path: Path, change) -> None:
    """Change an index as a tool would that knows how its digest is made."""
    content = json.loads((path / INDEX).read_text())
    content.pop("digest")
    change(content)
    (path / INDEX).write_text(json.dumps({**content, "digest": digest_value(content)}))


def first_code(content):
    return content["kernels"]["twice"]["parts"][0]["codes"]


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c.update(tools=None),
        lambda c: c.update(pack=5),
        lambda c: c["kernels"]["twice"].update(files=[1]),
        lambda c: first_code(c).__setitem__(0, None),
        lambda c: first_code(c)[0].update(cubin="../../k"),
        lambda c: first_code(c)[0].update(cubin=5),
        lambda c: first_code(c)[0].update(threads=-1),
        lambda c: first_code(c)[0].update(shared=10**400),
        lambda c: first_code(c)[0].pop("entry"),
    ],
)
def test_an_index_of_wrong_types_is_damaged_though_its_digest_fits(tmp_path, change):
    place = put(tmp_path / "build")
    spoil(place, change)
    assert said(lambda: read_build(place)) == (
        f"{place / INDEX}: KP321 is damaged; run 'kernelpkg build' again, or restore it"
    )


def test_a_build_of_another_pack_is_not_written_over(tmp_path):
    place = put(tmp_path / "build")
    claim(place)
    claim(tmp_path / "missing", "other")
    assert said(lambda: claim(place, "other")) == (
        f"{place / INDEX}: KP323 is a build of pack 'demo', and 'other' is built; name another "
        "directory"
    )
