"""What makes an epoch of a transformer shorter; its model computes what it did before."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from model_src.classifier import Classifier
from model_src.encoders.cls import ClsEncoder

# Model types whose layers are made of the parts that FirstState takes.
_ALIKE = {"bert", "roberta", "electra"}
_BITS = 16


def quicken(model: Classifier, device: torch.device, used: Iterable[int]) -> None:
    """Put quicker parts of equal names and weights into ``model``, which is to be trained.

    Word-vector models are left as they are: they have hardly any dropout.

    Args:
        model: on the CPU still.
        device: where it will be trained.
        used: the ids that training may meet.

    """
    bare = getattr(model.embedding, "model", None)
    if bare is None:
        return
    if device.type == "cpu":
        for name, module in list(bare.named_modules()):
            if type(module) is nn.Dropout:
                bare.set_submodule(name, QuickDropout(module.p))
    table = bare.get_input_embeddings()
    if type(table) is nn.Embedding and table.weight.requires_grad:
        bare.set_input_embeddings(UsedRows(table, sorted({*used} - {table.padding_idx})))
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


class UsedRows(nn.Module):
    """A table of subwords that learns some of its rows, the only ones that have a gradient.

    An optimizer passes over all that learns in each step: for a small BERT half of that are
    subwords, of which a data set has a third. The others keep their vectors; they lose none of
    their length to weight decay either.
    """

    def __init__(self, table: nn.Embedding, used: list[int]) -> None:
        """Take the rows ``used`` out of ``table``; the row of its pad, if it has one, stays."""
        super().__init__()
        rows = torch.tensor(used, dtype=torch.long)
        place = torch.full((table.num_embeddings,), -1).index_put((rows,), torch.arange(len(rows)))
        self.rows: Tensor
        self.place: Tensor
        self.table: Tensor
        whole = table.weight.detach()
        for name, value in {"rows": rows, "place": place, "table": whole}.items():
            self.register_buffer(name, value, persistent=False)
        self.weight = nn.Parameter(whole[rows])

    def forward(self, ids: Tensor) -> Tensor:
        """Map ids ``[batch, seq]`` to ``[batch, seq, size]``."""
        place = self.place[ids]
        learned = functional.embedding(place.clamp(min=0), self.weight)
        fixed = functional.embedding(ids, self.table)
        return torch.where((place < 0).unsqueeze(-1), fixed, learned)

    def _save_to_state_dict(
        self,
        destination: dict[str, Any],
        prefix: str,
        keep_vars: bool,  # noqa: FBT001
    ) -> None:
        """Save a whole table, as ``nn.Embedding`` does."""
        weight = self.weight if keep_vars else self.weight.detach()
        destination[f"{prefix}weight"] = self.table.index_put((self.rows,), weight)

    def _load_from_state_dict(self, state: dict[str, Any], prefix: str, *rest: Any) -> None:  # noqa: ANN401
        """Load a whole table; one that is missing or of another size is told as ever."""
        name = f"{prefix}weight"
        whole = state.get(name)
        if whole is not None and whole.shape == self.table.shape:
            self.table.copy_(whole.detach())
            state = {name: whole[self.rows.to(whole.device)]}
        super()._load_from_state_dict(state, prefix, *rest)


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
