import torch


def reference(
    out: torch.Tensor,
    x: torch.Tensor,
    y: torch.Tensor | None,
    n: int,
    m: int | None,
    flag: bool,
    eps: float,
    args: int,
    keep: int = 4,
) -> None:
    if y is not None:
        x = x + y
    out.copy_((x * n + eps).to(out.dtype))
