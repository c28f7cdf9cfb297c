import helion
import helion.language as hl
import torch

BLOCK = helion.next_power_of_2(3)


def double(
    out: torch.Tensor,
    input: torch.Tensor,
    bias: torch.Tensor | None = None,
    axis: int = 1,
    eps: float = 1e-6,
) -> torch.Tensor:
    result = torch.empty_like(input)
    hl.specialize(axis)
    for tile in hl.tile(input.size(0), block_size=BLOCK):
        out[tile] = input[tile] * 2 + eps
        result[tile] = out[tile]
    return result
