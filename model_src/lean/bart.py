"""BART without the work that an answer does not need (arXiv 1910.13461).

As in ``lean.transformer`` keys and values of a layer come from one product and position tables are
cut in advance; with a CLS head the decoder's last layer computes a sentence's last state only.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from model_src.embeddings.transformer import BartEmbedding
from model_src.interfaces import Embedding
from model_src.lean.convolutions import linear
from model_src.lean.transformer import ACTIVATIONS, Layer, Names, hidden

_PROJECTIONS = " ".join(f"self_attn.{name}_proj" for name in ("q", "k", "v", "out"))
_ENCODER = Names(f"{_PROJECTIONS} self_attn_layer_norm fc1 fc2 final_layer_norm")


def lean_bart(embedding: BartEmbedding, *, padded: bool, last: bool) -> Embedding:
    """Return ``embedding`` in its lean form, or as it is where there is none.

    Args:
        embedding: as trained.
        padded: whether it meets padded sentences.
        last: whether only the last state of each sentence is wanted.

    """
    activation = ACTIVATIONS.get(embedding.model.config.activation_function)
    if activation is None:
        return embedding
    return LeanBart(embedding.model, activation, padded=padded, last=last)


class LeanBart(Embedding):
    """The last decoder states: all of them, or only the last of each sentence.

    Padding must follow the tokens: the decoder looks back only, and so never at the padding.
    """

    encoder_places: Tensor
    decoder_places: Tensor

    def __init__(
        self,
        model: Any,  # noqa: ANN401
        activation: Callable[[Tensor], Tensor],
        *,
        padded: bool,
        last: bool,
    ) -> None:
        """Take the weights of ``model``, a bare ``BartModel``."""
        super().__init__()
        config = model.config
        self.hidden_size, self.padded, self.last = config.d_model, padded, last
        self.start = int(config.decoder_start_token_id)
        self.encoder_words, self.encoder_norm = _inputs(model.encoder)
        self.decoder_words, self.decoder_norm = _inputs(model.decoder)
        for name in ("encoder", "decoder"):
            table = model.get_submodule(name).embed_positions
            self.register_buffer(f"{name}_places", table.weight.detach()[table.offset :].clone())
        self.encoder = nn.ModuleList(
            Layer(layer, _ENCODER, config.encoder_attention_heads, activation)
            for layer in model.encoder.layers
        )
        self.decoder = nn.ModuleList(
            DecoderLayer(layer, config.decoder_attention_heads, activation)
            for layer in model.decoder.layers
        )

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Map ids and mask ``[batch, seq]`` to ``[batch, seq or 1, hidden]``."""
        length = ids.shape[1]
        x = self.encoder_norm(self.encoder_words(ids) + self.encoder_places[:length])
        hide = hidden(mask, x.dtype) if self.padded else None
        for layer in self.encoder:
            x = layer(x, hide, first=False)
        starts = torch.full_like(ids[:, :1], self.start)
        shifted = torch.cat([starts, ids[:, :-1]], dim=1)
        y = self.decoder_norm(self.decoder_words(shifted) + self.decoder_places[:length])
        steps = torch.arange(length, device=ids.device)
        past = hidden(steps <= steps[:, None], x.dtype)  # [seq, 1, 1, seq]
        causal = past.permute(1, 2, 0, 3)
        *most, final = self.decoder
        for layer in most:
            y = layer(y, y, x, causal, hide)
        if not self.last:
            states: Tensor = final(y, y, x, causal, hide)
        elif not self.padded:
            states = final(y[:, -1:], y, x, None, hide)
        else:
            ends = mask.sum(dim=1, dtype=torch.int64) - 1
            rows = ends + length * torch.arange(ids.shape[0], device=ids.device)
            asking = y.flatten(0, 1)[rows][:, None]
            states = final(asking, y, x, hide, hide)  # all real tokens are in its past
        return states


class DecoderLayer(nn.Module):
    """Attention to the tokens before, attention to the encoder, and two linear layers."""

    def __init__(self, layer: Any, heads: int, activation: Callable[[Tensor], Tensor]) -> None:  # noqa: ANN401
        """Take the weights of ``layer``."""
        super().__init__()
        self.own = Attention(layer.self_attn, layer.self_attn_layer_norm, heads)
        self.other = Attention(layer.encoder_attn, layer.encoder_attn_layer_norm, heads)
        self.up, self.down, self.norm = layer.fc1, layer.fc2, layer.final_layer_norm
        self.activation = activation

    def forward(
        self, x: Tensor, tokens: Tensor, states: Tensor, past: Tensor | None, hide: Tensor | None
    ) -> Tensor:
        """Map ``[batch, asking, hidden]`` to the same.

        Args:
            x: the tokens whose states are wanted.
            tokens: all of them, ``[batch, seq, hidden]``.
            states: the encoder's, ``[batch, seq, hidden]``.
            past: added to the scores of ``tokens``, ``[1, 1, seq, seq]`` or as ``hide``.
            hide: added to the scores of ``states``, ``[batch, 1, 1, seq]``.

        """
        x = self.other(self.own(x, tokens, past), states, hide)
        made: Tensor = self.norm(x + self.down(self.activation(self.up(x))))
        return made


class Attention(nn.Module):
    """Attention of some tokens to others, with its residual and norm."""

    def __init__(self, part: Any, norm: nn.Module, heads: int) -> None:  # noqa: ANN401
        """Take the weights of ``part``, a ``BartAttention``."""
        super().__init__()
        self.q, self.out, self.norm = part.q_proj, part.out_proj, norm
        self.kv = linear(
            torch.cat([part.k_proj.weight, part.v_proj.weight]),
            torch.cat([part.k_proj.bias, part.v_proj.bias]),
        )
        self.heads, self.width, self.attend = heads, part.v_proj.out_features, attend_to

    def forward(self, x: Tensor, others: Tensor, bias: Tensor | None) -> Tensor:
        """Map ``[batch, asking, hidden]`` to the same; see ``attend_to``."""
        # a constant width: to chunk costs the graphs of ONNX eight operations
        k, v = self.kv(others).split([self.width, self.width], dim=-1)
        found = self.attend(self.q(x), k, v, bias, self.heads)
        made: Tensor = self.norm(x + self.out(found))
        return made


def attend_to(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, heads: int) -> Tensor:
    """Let ``q`` ``[batch, asking, hidden]`` look at ``k`` and ``v`` ``[batch, seq, hidden]``.

    ``bias`` is added to the scores, ``[1 or batch, 1, 1 or asking, seq]``.
    """
    q, k, v = (each.unflatten(-1, (heads, -1)).transpose(1, 2) for each in (q, k, v))
    found = functional.scaled_dot_product_attention(q, k, v, attn_mask=bias)
    return found.transpose(1, 2).flatten(2)


def _inputs(half: Any) -> tuple[nn.Module, nn.Module]:  # noqa: ANN401
    return half.embed_tokens, half.layernorm_embedding
