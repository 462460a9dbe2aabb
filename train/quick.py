"""What makes an epoch of a transformer shorter on a CPU and changes no answer of the model."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from model_src.classifier import Classifier
from model_src.encoders.cls import ClsEncoder

# Model types whose layers are made of the parts that FirstState takes.
_ALIKE = {"bert", "roberta", "electra"}
_BITS = 16


def quicken(model: Classifier, device: torch.device) -> None:
    """Put quicker parts of equal names and weights into ``model``, which is to be trained.

    Word-vector models are left as they are: they have hardly any dropout.
    """
    bare = getattr(model.embedding, "model", None)
    if bare is None:
        return
    if device.type == "cpu":
        for name, module in list(bare.named_modules()):
            if type(module) is nn.Dropout:
                bare.set_submodule(name, QuickDropout(module.p))
    alike = bare.config.model_type in _ALIKE and not bare.config.is_decoder
    if alike and isinstance(model.encoder, ClsEncoder):
        layers = bare.encoder.layer
        layers[-1] = FirstState(layers[-1], bare.config.num_attention_heads)
    bare.train(bare.training)


class QuickDropout(nn.Dropout):
    """Dropout (arXiv 1207.0580) by 16 random bits a value.

    torch draws a number for each value on one core, which shows in an epoch of a small model.
    """

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's own name
        """Zero a random share ``p`` of a tensor of any shape, and scale up the rest."""
        if not self.training or not self.p:
            return input
        draws = 64 // _BITS
        bits = torch.empty(-(-input.numel() // draws), dtype=torch.int64).random_(-(2**63), None)
        least = round(self.p * 2**_BITS) - 2 ** (_BITS - 1)
        kept = bits.view(torch.int16)[: input.numel()].view(input.shape) >= least
        scaled: Tensor = input * kept.to(input.dtype).mul_(1 / (1 - self.p))
        return scaled


class FirstState(nn.Module):
    """The last layer of BERT and its kin, for the first token alone: a CLS head reads no other."""

    def __init__(self, layer: Any, heads: int) -> None:  # noqa: ANN401 - any such layer
        """Take the parts of ``layer``, so that they keep their names."""
        super().__init__()
        self.attention: Any = layer.attention
        self.intermediate, self.output, self.heads = layer.intermediate, layer.output, heads

    def forward(
        self, states: Tensor, attention_mask: Tensor | None = None, *_: object, **__: object
    ) -> Tensor:
        """Map ``[batch, seq, hidden]`` to ``[batch, 1, hidden]``.

        ``attention_mask`` is what transformers gives a layer: ``[batch, 1, 1 or seq, seq]``.
        """
        first, own = states[:, :1], self.attention.self
        query, key, value = (
            part(given).unflatten(2, (self.heads, -1)).transpose(1, 2)
            for part, given in ((own.query, first), (own.key, states), (own.value, states))
        )
        found = functional.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=None if attention_mask is None else attention_mask[:, :, :1],
            dropout_p=own.dropout.p if self.training else 0.0,
        )
        state = self.attention.output(found.transpose(1, 2).flatten(2), first)
        made: Tensor = self.output(self.intermediate(state), state)
        return made
