"""A transformer over sentences of several lengths, token after token and without padding.

Linear layers, norms and activations work token by token, so that they need not know where a
sentence ends; only attention does. It takes neighbours of one length together, and ``Predictor``
sorts them.
"""

import functools
from collections.abc import Callable

import torch
from torch import Tensor, nn

from model_src.backends.common import Backend
from model_src.backends.torchscript import freeze, script
from model_src.classifier import Classifier
from model_src.interfaces import Embedding
from model_src.lean.convolutions import LeanConvolutions
from model_src.lean.transformer import Layer, LeanTransformer


def packed(model: Classifier) -> Backend | None:
    """Return the graph of ``model`` for sentences of several lengths, None where there is none.

    There is one of transformers in their lean form. It is made of ``model`` itself, which changes.
    """
    if not isinstance(model.embedding, LeanTransformer):
        return None
    model.embedding = PackedTransformer(model.embedding)
    for part in model.encoder.modules():
        if isinstance(part, LeanConvolutions):  # the one such head of transformers
            part.padded = True  # states come back with padding, if only for these
    return freeze(model)


class PackedTransformer(Embedding):
    """The states of a ``LeanTransformer``, computed without those of the padding."""

    def __init__(self, whole: LeanTransformer) -> None:
        """Share the layers of ``whole``."""
        super().__init__()
        self.whole, self.hidden_size = whole, whole.hidden_size

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Map ids and mask ``[batch, seq]`` to ``[batch, seq or 1, hidden]``, 0 at the padding."""
        whole, length = self.whole, ids.shape[1]
        lengths = mask.sum(dim=1)
        places = torch.arange(length).expand_as(ids)[mask]
        x = whole.look_up(ids[mask], whole.places[places])  # [tokens, hidden]
        bias = whole.distances(length)
        *most, last = whole.layers
        for layer in most:
            x = self._pass(layer, x, lengths, bias)
        if whole.first:
            return self._pass(last, x, lengths, bias, firsts=lengths.cumsum(0) - lengths)[:, None]
        x = self._pass(last, x, lengths, bias)
        states = torch.zeros(*ids.shape, x.shape[1], dtype=x.dtype)
        return states.masked_scatter(mask[:, :, None], x)

    def _pass(
        self,
        layer: nn.Module,
        x: Tensor,
        lengths: Tensor,
        bias: Tensor | None,
        firsts: Tensor | None = None,
    ) -> Tensor:
        """Map ``[tokens, hidden]`` to the same, or to those at ``firsts`` only."""
        if not isinstance(layer, Layer):
            raise TypeError(type(layer))
        found = _scripted()(layer.qkv(x), lengths, bias, layer.heads, firsts is not None)
        return layer.finish(x if firsts is None else x[firsts], found)


@functools.cache
def _scripted() -> Callable[..., Tensor]:
    """Return ``_attend`` compiled, once and only where a model needs it."""
    return script(_attend)


def _attend(qkv: Tensor, lengths: Tensor, bias: Tensor | None, heads: int, first: bool) -> Tensor:  # noqa: FBT001 - TorchScript
    """Let each sentence attend to itself; neighbours of one length do so in one call.

    Args:
        qkv: ``[tokens, 3 * hidden]``, the sentences one after another.
        lengths: ``[batch]``, the tokens of each.
        bias: ``[heads, seq, seq]`` is added to the scores.
        heads: of attention.
        first: whether only the first token of each sentence asks.

    Returns:
        ``[tokens or batch, hidden]``.

    """
    sizes: list[int] = lengths.tolist()
    parts: list[Tensor] = []
    start, i = 0, 0
    while i < len(sizes):
        length, count = sizes[i], 1
        while i + count < len(sizes) and sizes[i + count] == length:
            count += 1
        end = start + count * length
        split = qkv[start:end].view(count, length, 3, heads, -1).permute(2, 0, 3, 1, 4)
        q, k, v = split[0], split[1], split[2]  # each [count, heads, length, values]
        near: Tensor | None = None
        if bias is not None:
            near = bias[None, :, :length, :length]
        if first:
            q = q[:, :, :1]
            if near is not None:
                near = near[:, :, :1]
        found = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=near)
        parts.append(found.transpose(1, 2).flatten(2).flatten(0, 1))
        start, i = end, i + count
    return torch.cat(parts)
