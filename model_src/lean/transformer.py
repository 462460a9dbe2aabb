"""BERT and its kin without the work that an answer does not need.

One projection gives queries, keys and values of a layer, position tables are added up in advance,
and where only the first state is used, the last layer computes no other.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from model_src.embeddings.transformer import TransformerEmbedding
from model_src.interfaces import Embedding
from model_src.lean.convolutions import linear

_TANH = partial(functional.gelu, approximate="tanh")
# transformers spells the second one out in eight operations.
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": functional.gelu,
    "gelu_new": _TANH,
    "gelu_fast": _TANH,
    "gelu_pytorch_tanh": _TANH,
    "relu": torch.relu,
    "silu": functional.silu,
    "swish": functional.silu,
}


@dataclass(frozen=True)
class Names:
    """Where a model type of transformers keeps the parts of a layer, and what it adds to them."""

    parts: str  # query, key, value, output, its norm, up, down, its norm
    stack: str = "encoder.layer"
    activation: str = "hidden_act"
    project: str = ""  # from the width of the word vectors to that of the layers
    shifted: bool = False  # positions are numbered from the one after the pad's id


_BERT = Names(
    "attention.self.query attention.self.key attention.self.value attention.output.dense "
    "attention.output.LayerNorm intermediate.dense output.dense output.LayerNorm"
)
_NAMES = {
    "bert": _BERT,
    "roberta": Names(_BERT.parts, shifted=True),
    "electra": Names(_BERT.parts, project="embeddings_project"),
    "distilbert": Names(
        "attention.q_lin attention.k_lin attention.v_lin attention.out_lin "
        "sa_layer_norm ffn.lin1 ffn.lin2 output_layer_norm",
        stack="transformer.layer",
        activation="activation",
    ),
    "mpnet": Names(
        "attention.attn.q attention.attn.k attention.attn.v attention.attn.o "
        "attention.LayerNorm intermediate.dense output.dense output.LayerNorm",
        shifted=True,
    ),
    "albert": Names(
        "attention.query attention.key attention.value attention.dense "
        "attention.LayerNorm ffn ffn_output full_layer_layer_norm",
        stack="encoder.albert_layer_groups",
        project="encoder.embedding_hidden_mapping_in",
    ),
}


def lean_transformer(embedding: TransformerEmbedding, *, padded: bool, first: bool) -> Embedding:
    """Return ``embedding`` in its lean form, or as it is where there is none."""
    config = embedding.model.config
    names = _NAMES.get(config.model_type)
    if names is None or getattr(config, "is_decoder", False):
        return embedding
    if getattr(config, names.activation) not in ACTIVATIONS:
        return embedding
    return LeanTransformer(embedding.model, names, padded=padded, first=first)


class LeanTransformer(Embedding):
    """The last hidden states of an encoder: all of them, or only the first of each sentence."""

    places: Tensor
    relative: Tensor | None

    def __init__(
        self,
        model: Any,  # noqa: ANN401
        names: Names,
        *,
        padded: bool,
        first: bool,
    ) -> None:
        """Take the weights of ``model``, a bare encoder of transformers."""
        super().__init__()
        config, old = model.config, model.embeddings
        self.hidden_size, self.padded, self.first = config.hidden_size, padded, first
        self.words, self.norm = old.word_embeddings, old.LayerNorm
        places = old.position_embeddings.weight.detach()
        if names.shifted:
            places = places[old.padding_idx + 1 :]
        if hasattr(old, "token_type_embeddings"):
            places = places + old.token_type_embeddings.weight.detach()[0]
        self.register_buffer("places", places.clone())
        self.project = model.get_submodule(names.project) if _has(model, names.project) else None
        relative = _relative(model, len(places)) if config.model_type == "mpnet" else None
        self.register_buffer("relative", relative)
        activation = ACTIVATIONS[getattr(config, names.activation)]
        stack, heads = _stack(model, names), config.num_attention_heads
        # ALBERT passes through one layer many times.
        made = {layer: Layer(layer, names, heads, activation) for layer in dict.fromkeys(stack)}
        self.layers = nn.ModuleList(made[layer] for layer in stack)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Map ids and mask ``[batch, seq]`` to ``[batch, seq or 1, hidden]``."""
        length = ids.shape[1]
        x = self.look_up(ids, self.places[:length])
        bias = None
        if self.padded:
            bias = hidden(mask, x.dtype)
        near = self.distances(length)
        if near is not None:
            bias = near[None] if bias is None else bias + near
        *most, last = self.layers
        for layer in most:
            x = layer(x, bias, first=False)
        states: Tensor = last(x, bias, first=self.first)
        return states

    def look_up(self, ids: Tensor, places: Tensor) -> Tensor:
        """Map ids ``[..., seq]`` and the rows of their places to ``[..., seq, hidden]``."""
        x: Tensor = self.norm(self.words(ids) + places)
        return x if self.project is None else self.project(x)

    def distances(self, length: int) -> Tensor | None:
        """Return the bias ``[heads, length, length]`` of the scores of MPNet, None of others."""
        if self.relative is None:
            return None
        steps = torch.arange(length, device=self.relative.device)
        return self.relative[:, steps - steps[:, None] + len(self.places) - 1]


class Layer(nn.Module):
    """Attention and two linear layers, each with a residual and a norm (arXiv 1706.03762)."""

    def __init__(
        self, layer: nn.Module, names: Names, heads: int, activation: Callable[[Tensor], Tensor]
    ) -> None:
        """Take the weights of ``layer``, whose parts have ``names``."""
        super().__init__()
        parts: list[Any] = [layer.get_submodule(name) for name in names.parts.split()]
        q, k, v, self.out, self.out_norm, self.up, self.down, self.down_norm = parts
        self.qkv = linear(
            torch.cat([q.weight, k.weight, v.weight]), torch.cat([q.bias, k.bias, v.bias])
        )
        self.heads, self.activation, self.attend = heads, activation, attend

    def forward(self, x: Tensor, bias: Tensor | None, *, first: bool) -> Tensor:
        """Map ``[batch, seq, hidden]`` to ``[batch, seq or 1, hidden]``.

        ``bias`` is added to the scores of attention: ``[1 or batch, 1 or heads, 1 or seq, seq]``.
        """
        found = self.attend(self.qkv(x), bias, self.heads, first)
        return self.finish(x[:, :1] if first else x, found)

    def finish(self, x: Tensor, found: Tensor) -> Tensor:
        """Map the layer's input and what attention found, ``[..., hidden]``, to its output."""
        x = self.out_norm(x + self.out(found))
        states: Tensor = self.down_norm(x + self.down(self.activation(self.up(x))))
        return states


def attend(qkv: Tensor, bias: Tensor | None, heads: int, first: bool) -> Tensor:  # noqa: FBT001
    """Let tokens look at each other, or only the ``first`` at all (arXiv 1706.03762).

    Args:
        qkv: ``[batch, seq, 3 * hidden]``, queries, keys and values.
        bias: added to the scores, see ``Layer``.
        heads: of attention.
        first: whether only the first token asks.

    Returns:
        ``[batch, seq or 1, hidden]``.

    """
    q, k, v = qkv.view(*qkv.shape[:2], 3, heads, -1).permute(2, 0, 3, 1, 4)
    if first:
        q, bias = q[:, :, :1], None if bias is None else bias[:, :, :1]
    found = functional.scaled_dot_product_attention(q, k, v, attn_mask=bias)
    return found.transpose(1, 2).flatten(2)


def hidden(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """Return ``[batch, 1, 1, seq]``, which hides from attention what ``[batch, seq]`` says."""
    hide = torch.zeros_like(mask, dtype=dtype).masked_fill(~mask, float("-inf"))
    return hide[:, None, None, :]


def _has(model: nn.Module, path: str) -> bool:
    return bool(path) and any(name == path for name, _ in model.named_modules())


def _stack(model: Any, names: Names) -> list[nn.Module]:  # noqa: ANN401
    """Return the layers in the order in which states pass through them."""
    stack = list(model.get_submodule(names.stack))
    if model.config.model_type != "albert":
        return stack
    depth = model.config.num_hidden_layers
    groups = (stack[int(i / (depth / len(stack)))] for i in range(depth))
    return [layer for group in groups for layer in group.albert_layers]


def _relative(model: Any, most: int) -> Tensor:  # noqa: ANN401
    """Return MPNet's bias ``[heads, 2 * most - 1]`` of the distances from 1 - most to most - 1."""
    table: Tensor = model.encoder.relative_attention_bias.weight.detach()
    distances = torch.arange(1 - most, most, device=table.device)
    buckets = model.encoder.relative_position_bucket(distances, num_buckets=32)
    return table[buckets].T.contiguous()
