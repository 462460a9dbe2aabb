"""The encoders of word vectors in products of matrices, which runtimes do best and can quantize.

What depends on where a sentence ends is a function of its own in each part: ``backends.packed``
puts others there, for sentences that lie one after another. What is called mask below is then its
``Layout``, which the other functions only hand on.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from model_src.encoders.cnn import MaskedConvolutions
from model_src.encoders.densenet import DenseNet
from model_src.encoders.dsa import DynamicSelfAttention


class Windows(nn.Module):
    """Convolutions with the same input as one product; narrow kernels are padded with zeros."""

    def __init__(self, convolutions: Sequence[Any]) -> None:
        """Take the weights of ``convolutions``, each a ``Conv1d`` of stride 1.

        A window begins ``padding`` tokens before its own token and sees zeros past both ends.
        """
        super().__init__()
        sizes = [(int(c.kernel_size[0]), int(c.padding[0])) for c in convolutions]
        self.width = convolutions[0].in_channels
        self.before = max(padding for _, padding in sizes)
        self.after = max(size - 1 - padding for size, padding in sizes)
        rows, biases = [], []
        for convolution, (size, padding) in zip(convolutions, sizes, strict=True):
            ends = (self.before - padding, self.after - (size - 1 - padding))
            weight = functional.pad(convolution.weight.detach(), ends)
            rows.append(weight.transpose(1, 2).flatten(1))
            biases.append(convolution.bias)
        self.linear = linear(torch.cat(rows), torch.cat(biases))
        self.slide: Callable[[Tensor, Any, int, int], Tensor] = slide

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Map ``[..., in]`` to ``[..., filters]``; see ``slide``."""
        if self.before or self.after:
            x = self.slide(x, mask, self.before, self.after)
        features: Tensor = self.linear(x)
        return features


class LeanConvolutions(nn.Module):
    """Convolutions of several widths in one product, and the maximum of each filter."""

    def __init__(self, module: MaskedConvolutions, *, padded: bool) -> None:
        """Take the weights of ``module``; see ``lean`` for ``padded``."""
        super().__init__()
        self.windows, self.padded = Windows(list(module.convolutions)), padded
        self.most: Callable[[Tensor, Any], Tensor] = most

    def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """Map hidden ``[batch, seq, in]`` and mask ``[batch, seq]`` to ``[batch, out]``."""
        real = _real(mask, hidden.dtype) if self.padded else None
        features = _hide(self.windows(_hide(hidden, real), mask), real)
        # relu after the maximum, where there is less to do; hidden positions have 0
        return torch.relu(self.most(features, mask))


class LeanDenseNet(nn.Module):
    """A dense block whose columns begin with one product, since they share their input."""

    def __init__(self, module: DenseNet, *, padded: bool) -> None:
        """Take the weights of ``module``; see ``lean`` for ``padded``."""
        super().__init__()
        self.padded = padded
        self.depth, every = module.depth, list(module.convolutions)
        self.columns = len(every) // self.depth
        self.first = Windows(every[:: self.depth])
        # column after column, each without its first
        self.rest = nn.ModuleList(Windows([every[i]]) for i in range(len(every)) if i % self.depth)
        self.join, self.activation = Windows([module.join]), module.activation

    def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """Map hidden ``[batch, seq, in]`` and mask ``[batch, seq]`` to ``[batch, seq, out]``."""
        real = _real(mask, hidden.dtype) if self.padded else None
        x = _hide(hidden, real)
        lasts = [x]
        more = self.depth - 1
        starts = _hide(self.activation(self.first(x, mask)), real).chunk(self.columns, dim=-1)
        for column, start in enumerate(starts):
            found = [start]
            for windows in self.rest[column * more : (column + 1) * more]:
                features = windows(torch.cat(found, dim=-1), mask)
                found.append(_hide(self.activation(features), real))
            lasts.append(found[-1])
        return torch.relu(self.join(torch.cat(lasts, dim=-1), mask))


class LeanDsa(nn.Module):
    """Dynamic self-attention, all attentions in one batched product."""

    def __init__(self, module: DynamicSelfAttention, *, padded: bool) -> None:
        """Take the weights of ``module``; see ``lean`` for ``padded``."""
        super().__init__()
        self.padded = padded
        self.project, self.iterations = module.project, module.iterations
        self.attentions = module.attentions
        self.refine: Callable[[Tensor, Any, int, int, bool], Tensor] = refine

    def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """Map hidden ``[batch, seq, in]`` and mask ``[batch, seq]`` to ``[batch, out]``."""
        projected = functional.leaky_relu(self.project(hidden))
        return self.refine(projected, mask, self.attentions, self.iterations, self.padded)


def slide(x: Tensor, mask: Tensor, before: int, after: int) -> Tensor:
    """Return the window of each token, with zeros past both ends of the sentence.

    Args:
        x: ``[batch, seq, in]``.
        mask: ``[batch, seq]``; what it hides is 0 already, or there is none such.
        before: tokens of a window before its own.
        after: tokens after it.

    Returns:
        ``[batch, seq, (before + 1 + after) * in]``.

    """
    span = before + 1 + after
    x = functional.pad(x, (0, 0, before, after))
    if torch.onnx.is_in_onnx_export():  # ONNX has no views of overlapping windows
        return torch.cat([x[:, i : i + 1 - span or None] for i in range(span)], dim=2)
    return x.flatten(1).unfold(1, span * x.shape[2], x.shape[2])


def most(features: Tensor, mask: Tensor) -> Tensor:
    """Map features ``[batch, seq, filters]``, 0 where ``mask`` hides, to ``[batch, filters]``."""
    return features.amax(dim=1)


def refine(
    projected: Tensor,
    mask: Tensor,
    attentions: int,
    iterations: int,
    padded: bool,  # noqa: FBT001 - TorchScript
) -> Tensor:
    """Return what each attention has gathered at last (arXiv 1808.07383, 3.1).

    Args:
        projected: ``[batch, seq, attentions * size]``.
        mask: ``[batch, seq]``.
        attentions: side by side.
        iterations: of each.
        padded: whether the mask hides anything.

    Returns:
        ``[batch, attentions * size]``.

    """
    batch, seq = mask.shape
    # As [batch, attentions, seq, size], copied: views have other kernels alone than in a batch.
    x = projected.view(batch, seq, attentions, -1).transpose(1, 2).contiguous()
    hide = torch.zeros_like(mask, dtype=x.dtype)
    if padded:
        hide = hide.masked_fill(~mask, float("-inf"))
    scores = hide[:, None, None, :]  # [batch, attentions, 1, seq], before softmax
    z = torch.tanh(scores.softmax(dim=3) @ x)
    for _ in range(iterations - 1):
        scores = scores + z @ x.transpose(2, 3)
        z = torch.tanh(scores.softmax(dim=3) @ x)
    return z.flatten(1)


def _real(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """Return 1 for each real position and 0 for each other: ``[batch, seq, 1]``."""
    return mask[:, :, None].to(dtype)


def _hide(x: Tensor, real: Tensor | None) -> Tensor:
    """Set positions of ``[batch, seq, any]`` that are not ``real`` to zeros."""
    return x if real is None else x * real


def linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    """Return a layer of ``weight`` ``[out, in]`` and ``bias`` ``[out]``."""
    layer = nn.Linear(weight.shape[1], weight.shape[0], device="meta")
    layer.weight, layer.bias = nn.Parameter(weight.detach()), nn.Parameter(bias.detach())
    return layer
