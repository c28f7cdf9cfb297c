"""A pack without its build, for what compiles at the call."""

from __future__ import annotations

from pathlib import Path


def unbuilt(root: Path, place: Path) -> Path:
    """Return a root below `place` with links to all of a pack but its builds and its lock."""
    made = place / "unbuilt"
    made.mkdir()
    for folder in ("manifests", "kernels", "configs"):
        (made / folder).symlink_to(root.resolve() / folder)
    return made
