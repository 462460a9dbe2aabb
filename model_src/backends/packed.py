"""Sentences of several lengths, token after token and without padding.

Linear layers, norms and activations work token by token, so that they need not know where a
sentence ends; only attention, windows of words and the maximum of a filter do. Attention takes
neighbours of one length together, and ``Predictor`` sorts them.
"""

import torch
from torch import Tensor, nn

from model_src.backends.jit import script
from model_src.classifier import Classifier
from model_src.embeddings.glove import GloveEmbedding
from model_src.interfaces import Embedding
from model_src.lean.convolutions import LeanConvolutions, LeanDsa, Windows, refine
from model_src.lean.transformer import Layer, LeanTransformer


def packed(model: Classifier) -> Classifier | None:
    """Turn ``model``, in its lean form, into one that takes sentences of several lengths.

    Returns:
        ``model``, or None for BART, which has no such form.

    """
    embedding = model.embedding
    if isinstance(embedding, LeanTransformer):
        model.embedding = PackedTransformer(embedding)
        for part in model.encoder.modules():
            if isinstance(part, LeanConvolutions):  # the one such head of transformers
                part.padded = True  # states come back with padding, if only for these
        return model
    if not isinstance(embedding, GloveEmbedding):
        return None
    model.embedding = PackedWords(embedding)
    for part in model.encoder.modules():
        if isinstance(part, Windows):
            part.slide = script(_slide)
        elif isinstance(part, LeanConvolutions):
            part.most = script(_most)
        elif isinstance(part, LeanDsa):
            part.refine = script(_refine)
    return model


class PackedWords(Embedding):
    """Word vectors of sentences one after another."""

    def __init__(self, whole: GloveEmbedding) -> None:
        """Share the table of ``whole``."""
        super().__init__()
        self.whole, self.hidden_size = whole, whole.hidden_size

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Map ids and mask ``[batch, seq]`` to ``[tokens, hidden]``."""
        vectors: Tensor = self.whole(script(_real)(ids, mask), mask)
        return vectors


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
        attend = script(_attend)
        found = attend(layer.qkv(x), lengths, bias, layer.heads, firsts is not None)
        return layer.finish(x if firsts is None else x[firsts], found)


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


def _real(ids: Tensor, mask: Tensor) -> Tensor:
    """Return the ids ``[tokens]`` that ``mask`` does not hide."""
    if len(ids) == 1 and bool(mask.all()):
        return ids.flatten()
    return ids.masked_select(mask)


def _slide(x: Tensor, mask: Tensor, before: int, after: int) -> Tensor:
    """Do what ``slide`` of the lean forms does for ``[tokens, in]``."""
    width = x.shape[1]
    size = (before + 1 + after) * width
    if len(mask) == 1:
        return torch.constant_pad_nd(x, [0, 0, before, after]).flatten().unfold(0, size, width)
    # Before each sentence, and after the last, lie the zeros that both of its sides see.
    gap = max(before, after)
    starts = torch.constant_pad_nd(mask, [gap - before, before]).flatten().nonzero().flatten()
    apart = torch.zeros([len(mask) * (mask.shape[1] + gap) + gap, width], dtype=x.dtype)
    apart[before:].index_copy_(0, starts, x)
    return apart.flatten().unfold(0, size, width).index_select(0, starts)


def _most(features: Tensor, mask: Tensor) -> Tensor:
    """Map features ``[tokens, filters]`` to the largest of each sentence ``[batch, filters]``."""
    sizes: list[int] = mask.sum(dim=1).tolist()
    found = torch.empty([len(sizes), features.shape[1]], dtype=features.dtype)
    start = 0
    for i, size in enumerate(sizes):
        torch.amax(features.narrow(0, start, size), 0, out=found[i])
        start += size
    return found


def _refine(
    projected: Tensor,
    mask: Tensor,
    attentions: int,
    iterations: int,
    padded: bool,  # noqa: FBT001 - TorchScript
) -> Tensor:
    """Do what ``refine`` of the lean forms does for ``[tokens, attentions * size]``."""
    sizes: list[int] = mask.sum(dim=1).tolist()
    parts: list[Tensor] = []
    start, i = 0, 0
    while i < len(sizes):
        length, count = sizes[i], 1
        while i + count < len(sizes) and sizes[i + count] == length:
            count += 1
        end = start + count * length
        equal = torch.ones([count, length], dtype=torch.bool)
        same = projected[start:end].view(count, length, -1)
        parts.append(refine(same, equal, attentions, iterations, padded))
        start, i = end, i + count
    return torch.cat(parts)
