"""Reference and inputs of write_cache."""

from typing import Any

import torch


def reference(cache: torch.Tensor, rows: torch.Tensor, slots: torch.Tensor) -> None:
    """Write the rows."""
    taken = slots >= 0
    page, place = slots[taken] // cache.size(1), slots[taken] % cache.size(1)
    cache[page, place] = rows[taken].to(cache.dtype)


def slots(axes: dict[str, Any], args: dict[str, Any], generator: torch.Generator) -> torch.Tensor:
    """Return distinct slots, of which every third is left out."""
    count, device = axes["num_pages"] * axes["page_size"], generator.device
    drawn = torch.randperm(count, generator=generator, device=device)
    drawn = drawn.repeat(-(-axes["num_tokens"] // count))[: axes["num_tokens"]]
    left_out = torch.arange(axes["num_tokens"], device=device)
    return torch.where((left_out % 3 == 2) | (left_out >= count), -1, drawn).to(torch.int32)
