"""The JSON Schemas of manifests, from the tables of keys that decode them."""

from __future__ import annotations

import json
from typing import Any, Final

from kernelpkg.manifest.decode import Table
from kernelpkg.manifest.keys import KERNEL_MANIFEST, PACK_MANIFEST

FILES: Final = {
    "kernel": ("kernels/kernel.schema.json", KERNEL_MANIFEST),
    "pack": ("manifests/pack.schema.json", PACK_MANIFEST),
}
"""Per kind of manifest: where its schema lies below a root, and its table of keys."""


def json_schema(kind: str) -> dict[str, Any]:
    """Return the schema of "kernel" or "pack" manifests, in JSON Schema draft 2020-12."""
    table: Table = FILES[kind][1]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"kernelpkg {kind} manifest, edition 1",
        **table.schema(),
    }


def schema_text(kind: str) -> str:
    """Return the schema as the bytes of its file."""
    return json.dumps(json_schema(kind), indent=2, ensure_ascii=False) + "\n"
