"""Sentences of several lengths, token after token and without padding.

Linear layers, norms and activations work token by token, so that they need not know where a
sentence ends; only attention, windows of words and the maximum of a filter do. Attention takes
neighbours of one length together, and ``Predictor`` sorts them.
"""

import numpy as np
import torch
from torch import Tensor, nn

from model_src.backends.common import RunRows
from model_src.backends.jit import freeze, script
from model_src.classifier import Classifier
from model_src.embeddings.glove import GloveEmbedding
from model_src.interfaces import Embedding
from model_src.lean.convolutions import LeanConvolutions, LeanDsa, Windows, refine
from model_src.lean.transformer import Layer, LeanTransformer
from model_src.tokenizer import pad_batch

# What encoders of words are given in the place of a mask: the tokens of each sentence ``[batch]``,
# and the place of each token ``[tokens]`` where zeros are free between two sentences; both int64.
Layout = tuple[Tensor, Tensor]


def packed(model: Classifier) -> nn.Module | None:
    """Turn ``model``, in its lean form, into one that computes no padding.

    Returns:
        What maps ids and mask ``[batch, seq]`` to logits, or None for BART, which has no such form.

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
    gap = 0
    for part in model.encoder.modules():
        if isinstance(part, Windows):
            part.slide = script(_slide)
            gap = max(gap, part.before, part.after)
        elif isinstance(part, LeanConvolutions):
            part.most = script(_most)
        elif isinstance(part, LeanDsa):
            part.refine = script(_refine)
    return PackedWords(model, gap).eval()


def frozen(form: nn.Module) -> RunRows:
    """Freeze what ``packed`` has made into a graph that is given sentences as they are.

    Transformers still get them padded, by any id: they look up none that the mask hides.
    """
    if not isinstance(form, PackedWords):
        graph = freeze(form)
        return lambda rows: graph(*pad_batch(rows, 0))
    gap = form.gap
    words = freeze(form.words, laid_out([[1] * 3, [1] * 2], gap))
    return lambda rows: words(*laid_out(rows, gap))


class Words(nn.Module):
    """A classifier of words for sentences that ``laid_out`` has put one after another."""

    def __init__(self, model: Classifier) -> None:
        """Share the layers of ``model``, whose encoder takes a ``Layout`` for its mask."""
        super().__init__()
        self.model = model

    def forward(self, ids: Tensor, sizes: Tensor, places: Tensor) -> Tensor:
        """Map what ``laid_out`` makes to ``[batch, labels]``."""
        logits: Tensor = self.model(ids, (sizes, places))
        return logits


class PackedWords(nn.Module):
    """The same for sentences that come padded, as those of ``torchscript`` do."""

    def __init__(self, model: Classifier, gap: int) -> None:
        """Take what ``Words`` takes, and how many zeros its windows need between sentences."""
        super().__init__()
        self.words, self.gap = Words(model), gap

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Map ids and mask ``[batch, seq]`` to ``[batch, labels]``."""
        logits: Tensor = self.words(*script(_laid_out)(ids, mask, self.gap))
        return logits


def laid_out(rows: list[list[int]], gap: int) -> tuple[Tensor, Tensor, Tensor]:
    """Lay sentences one after another, all int64.

    Returns:
        The ids ``[tokens]``, and both parts of a ``Layout`` with ``gap`` places free.

    """
    ids = np.array([each for row in rows for each in row], dtype=np.int64)
    sizes = np.array([len(row) for row in rows], dtype=np.int64)
    before = np.repeat(np.arange(len(rows), dtype=np.int64) * gap, sizes)
    places = before + np.arange(len(ids), dtype=np.int64)
    return torch.from_numpy(ids), torch.from_numpy(sizes), torch.from_numpy(places)


def _laid_out(ids: Tensor, mask: Tensor, gap: int) -> tuple[Tensor, Tensor, Tensor]:
    """Do what ``laid_out`` does, with more places free; of one sentence nobody reads them."""
    sizes = mask.sum(dim=1)
    if len(ids) == 1 and bool(mask.all()):
        return ids.flatten(), sizes, sizes
    places = torch.constant_pad_nd(mask, [0, gap]).flatten().nonzero().flatten()
    return ids.masked_select(mask), sizes, places


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


def _slide(x: Tensor, layout: Layout, before: int, after: int) -> Tensor:
    """Do what ``slide`` of the lean forms does for ``[tokens, in]``."""
    sizes, places = layout
    width = x.shape[1]
    size = (before + 1 + after) * width
    if len(sizes) == 1:
        return torch.constant_pad_nd(x, [0, 0, before, after]).flatten().unfold(0, size, width)
    # Between two sentences lie the zeros that both of them see.
    apart = torch.zeros([before + int(places[-1]) + 1 + after, width], dtype=x.dtype)
    apart[before:].index_copy_(0, places, x)
    return apart.flatten().unfold(0, size, width).index_select(0, places)


def _most(features: Tensor, layout: Layout) -> Tensor:
    """Map features ``[tokens, filters]`` to the largest of each sentence ``[batch, filters]``."""
    sizes: list[int] = layout[0].tolist()
    found = torch.empty([len(sizes), features.shape[1]], dtype=features.dtype)
    start = 0
    for i, size in enumerate(sizes):
        torch.amax(features.narrow(0, start, size), 0, out=found[i])
        start += size
    return found


def _refine(
    projected: Tensor,
    layout: Layout,
    attentions: int,
    iterations: int,
    padded: bool,  # noqa: FBT001 - TorchScript
) -> Tensor:
    """Do what ``refine`` of the lean forms does for ``[tokens, attentions * size]``."""
    sizes: list[int] = layout[0].tolist()
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
