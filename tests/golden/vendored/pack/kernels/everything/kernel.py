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
    result = torch.empty(
        [hl.specialize(input.size(0))],
        dtype=input.dtype,
        device="cpu",
        pin_memory=False,
        layout=torch.strided,
    )
    if hl.specialize(input.size(0)) > 4:
        result = input.new_empty(1)
    result = result.contiguous(  # as it was
        memory_format=torch.contiguous_format
    )
    hl.specialize(axis)
    for size in result.shape:
        result = result.view(hl.specialize(size), -1)
    for tile in hl.tile(input.size(0), block_size=BLOCK):
        out[tile] = input[tile] * 2 + eps
        result[tile] = out[tile]
    return result
