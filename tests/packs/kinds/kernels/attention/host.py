"""The reference of attention."""

import torch


def reference(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    scale: float,
    causal: bool = False,
) -> torch.Tensor:
    """Return the attention, computed in float32."""
    scores = query.float() @ key.float().transpose(1, 2) * scale
    if causal:
        seen = torch.ones_like(scores, dtype=torch.bool).tril()
        scores = scores.masked_fill(~seen, float("-inf"))
    return (torch.softmax(scores, dim=-1) @ value.float()).to(query.dtype)
