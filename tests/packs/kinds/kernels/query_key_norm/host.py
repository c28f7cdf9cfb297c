"""The reference of query_key_norm."""

import torch


def reference(query: torch.Tensor, key: torch.Tensor, epsilon: float = 1e-6) -> None:
    """Write the norms, computed in float32."""
    for x in (query, key):
        x.copy_(torch.nn.functional.rms_norm(x.float(), x.shape[1:], None, epsilon))
