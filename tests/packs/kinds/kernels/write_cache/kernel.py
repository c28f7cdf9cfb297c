"""Rows written to slots of a cache in pages."""

import helion.language as hl
import torch


def write_cache(cache: torch.Tensor, rows: torch.Tensor, slots: torch.Tensor) -> None:
    """Write rows [t, w] to cache [p, s, w] at slots [t], each a page times s plus a place."""
    num_tokens, width = rows.size()
    flat = cache.view(-1, width)
    for tile_t in hl.tile(num_tokens):
        slot = slots[tile_t]
        taken = (slot >= 0)[:, None]
        for tile_w in hl.tile(width):
            codes = rows[tile_t, tile_w].to(cache.dtype)
            hl.store(flat, [slot, tile_w], codes, extra_mask=taken)
