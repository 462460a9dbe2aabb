"""Linear layers whose rows have the same bits alone and in any batch."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from model_src.backends.jit import script

# Rows of a product that are tried: up to what ``Predictor`` makes of a batch, padding included.
_ROWS = (*range(1, 33), 48, 64, 88, 96, 128, 192, 256, 384, 512, 1024, 2048)
# So many rows may a product be filled up to: with fewer, reading the weights takes the time.
_FEW = 16


class SteadyLinear(nn.Module):
    """A linear layer in the precision of its weights between states in fp32."""

    def __init__(self, layer: nn.Linear, least: int) -> None:
        """Share the weights of ``layer``; fewer rows than ``least`` are filled up."""
        super().__init__()
        self.weight, self.least = layer.weight, least
        # ``fewest`` has tried products with a bias
        self.bias = layer.bias if layer.bias is not None else torch.zeros_like(layer.weight[:, 0])

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[..., in]`` to ``[..., out]``, both fp32."""
        y: Tensor = script(_product)(x, self.weight, self.bias, self.least)
        return y


def _product(x: Tensor, weight: Tensor, bias: Tensor, least: int) -> Tensor:
    """Fill fewer rows than ``least`` up with zeros, so that each has the bits of a batch."""
    count = x.numel() // x.shape[-1]
    if count >= least:
        return torch.nn.functional.linear(x.to(weight.dtype), weight, bias).float()
    rows = torch.constant_pad_nd(x.flatten(0, -2), [0, 0, 0, least - count])
    y = torch.nn.functional.linear(rows.to(weight.dtype), weight, bias).float()
    return y[:count].view(x.shape[:-1] + y.shape[1:])


def fewest(inputs: int, outputs: int, dtype: torch.dtype) -> int | None:
    """Return the rows from which a product of ``[rows, inputs]`` with a bias is steady.

    That is: each row has the same bits among that many or more. Kernels for few rows may add in
    another order, and rounding to half precision shows that in one of thousands of values. So sums
    of zero are tried, of which nothing but errors of rounding is left: another order has others.

    Returns:
        None where that is not so from a few rows on.

    """
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(outputs, inputs // 2, generator=generator).to(dtype)
    x = torch.randn(_ROWS[-1], inputs // 2, generator=generator).to(dtype)
    weight, x = torch.cat([weight, -weight], dim=1), torch.cat([x, x], dim=1)
    # In any order, so that no half of a sum is zero by itself.
    order = torch.randperm(weight.shape[1], generator=generator)
    weight, x = (functional.pad(each[:, order], (0, inputs % 2)) for each in (weight, x))
    bias = torch.zeros(outputs, dtype=dtype)
    with torch.inference_mode():
        every = functional.linear(x, weight, bias)
        for i in reversed(range(len(_ROWS))):
            if not torch.equal(functional.linear(x[: _ROWS[i]], weight, bias), every[: _ROWS[i]]):
                return next((count for count in _ROWS[i + 1 :] if count <= _FEW), None)
    return 1
