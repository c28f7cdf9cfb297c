"""The cross entropy of each row of logits with its label."""

import helion.language as hl
import torch


def cross_entropy(logits: torch.Tensor, labels: torch.Tensor, ignored: int = -100) -> torch.Tensor:
    """Return -log softmax(logits [r, v])[label] as float32 [r], 0 where it is ignored."""
    num_rows, vocabulary = logits.size()
    flat = logits.reshape(-1)
    out = torch.empty([num_rows], dtype=torch.float32, device=logits.device)
    for rows in hl.tile(num_rows):
        label = labels[rows]
        kept = label != ignored
        place = torch.where(kept, label, 0)
        own = flat[rows.index * vocabulary + place].to(torch.float32)
        x = logits[rows, :].to(torch.float32)
        largest = torch.amax(x, dim=-1)
        total = torch.sum(torch.exp(x - largest[:, None]), dim=-1)
        out[rows] = torch.where(kept, largest + torch.log(total) - own, 0.0)
    return out
