"""The pack that a command is about."""

from __future__ import annotations

import pytest

from kernelpkg.errors import PackError, UsageError
from kernelpkg.packs.opening import open_pack


def test_a_pack_is_opened_with_the_overlays_that_are_named(demo, tmp_path):
    own = tmp_path / "own"
    own.mkdir()
    assert open_pack(None, demo.root, [own], {}).overlays == (str(own),)
    assert open_pack("demo", demo.root, [], {"KERNELPKG_CONFIGS": str(own)}).overlays == (str(own),)
    assert open_pack("demo", demo.root, [], {}).overlays == ()


def test_a_pack_or_an_overlay_that_is_not_there_is_refused(demo):
    with pytest.raises(UsageError, match="pack 'other' is not there"):
        open_pack("other", demo.root, [], {})
    with pytest.raises(PackError, match="nowhere: KP510 of --configs does not exist"):
        open_pack("demo", demo.root, ["nowhere"], {})
