"""Parts of the lean form as operations of ONNX Runtime's own, which the exporter does not know.

https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md
"""

from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from model_src.classifier import Classifier
from model_src.embeddings.glove import GloveEmbedding
from model_src.encoders.cnn import CnnEncoder
from model_src.interfaces import Embedding
from model_src.lean.bart import Attention, attend_to
from model_src.lean.convolutions import Windows
from model_src.lean.transformer import Layer
from model_src.tokenizer import WordTokenizer


def fused(model: Classifier) -> Classifier:
    """Let the runtime compute attention, and read the windows of a CNN's words, its own way.

    In int8 that takes a sixth from the time of an answer of MiniLM, a fifteenth from that of a CNN
    300 wide. The model must not meet padding from then on.
    """
    for part in model.modules():
        if isinstance(part, Layer):
            part.attend = partial(_attend, part.out.in_features)
        elif isinstance(part, Attention):
            part.attend = _Attention.apply
    if isinstance(model.embedding, GloveEmbedding) and isinstance(model.encoder, CnnEncoder):
        (windows,) = (part for part in model.encoder.modules() if isinstance(part, Windows))
        model.embedding = _WindowsOfWords(model.embedding, windows)
        windows.slide = _made
    return model


def _attend(
    width: int,
    qkv: Tensor,
    bias: Tensor | None,
    heads: int,
    first: bool,  # noqa: FBT001
) -> Tensor:
    """Compute what ``attend`` of the lean form does, from the same product of q, k and v.

    Their ``width`` is a constant of the graph: eight operations a layer less than to compute it.
    """
    q, k, v = qkv.split([width] * 3, dim=-1)
    if first:
        q, bias = q[:, :1], None if bias is None else bias[:, :, :1]
    found: Tensor = _Attention.apply(q, k, v, bias, heads)
    return found


class _Attention(torch.autograd.Function):
    """MultiHeadAttention: q ``[batch, asking, hidden]``, k and v ``[batch, seq, hidden]``."""

    @staticmethod
    def forward(
        ctx: object, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, heads: int
    ) -> Tensor:
        """Compute the same; the exporter runs it once."""
        return attend_to(q, k, v, bias, heads)

    @staticmethod
    def symbolic(g: Any, q: Any, k: Any, v: Any, bias: Any, heads: int) -> Any:  # noqa: ANN401
        """Return the node; of its inputs only some come with a bias."""
        inputs = [q, k, v]
        if bias is not None:
            none = g.op("prim::Constant")
            none.setType(torch._C.OptionalType.ofTensor())
            inputs += [none, none, bias]  # neither a bias of q, k and v nor a mask of keys
        node = g.op("com.microsoft::MultiHeadAttention", *inputs, num_heads_i=heads)
        return node.setType(q.type())


class _WindowsOfWords(Embedding):
    """The windows that ``slide`` makes of word vectors, read from the table at once.

    Eight operations and three copies of all vectors become four and one.
    """

    def __init__(self, words: GloveEmbedding, windows: Windows) -> None:
        """Copy the table of ``words``; the pad's vector, which no word has, becomes 0."""
        super().__init__()
        self.table, self.hidden_size = words.table.weight.detach().clone(), words.hidden_size
        self.table[WordTokenizer.pad_id] = 0
        self.ends = (windows.before, windows.after)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Map ids ``[batch, seq]``, none of them padding, to ``[batch, seq, window * hidden]``."""
        padded = functional.pad(ids, self.ends, value=WordTokenizer.pad_id)
        windows: Tensor = _Read.apply(self.table, padded, sum(self.ends) + 1)
        return windows


def _made(x: Tensor, mask: Tensor, before: int, after: int) -> Tensor:
    """Return windows that are made already."""
    return x


class _Read(torch.autograd.Function):
    """UnfoldTensor of ids, a few small numbers, and then one Gather."""

    @staticmethod
    def forward(ctx: object, table: Tensor, ids: Tensor, size: int) -> Tensor:
        """Map ids ``[batch, seq + size - 1]`` to ``[batch, seq, size * hidden]``."""
        return table[ids.unfold(1, size, 1)].flatten(2)

    @staticmethod
    def symbolic(g: Any, table: Any, ids: Any, size: int) -> Any:  # noqa: ANN401
        """Return the nodes."""
        windows = g.op("com.microsoft::UnfoldTensor", ids, dim_i=1, size_i=size, step_i=1)
        windows.setType(ids.type().with_sizes([None, None, size]))
        shape = g.op("Constant", value_t=torch.tensor([0, 0, -1]))
        return g.op("Reshape", g.op("Gather", table, windows), shape)
