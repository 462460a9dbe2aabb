"""Embedding, encoder and a linear layer: ids and mask to logits."""

from typing import Any

from torch import Tensor, nn

from model_src.config import Config
from model_src.embeddings import EMBEDDINGS, Family
from model_src.encoders import ENCODERS
from model_src.errors import ConfigError, nearest


def family_of(config: Config) -> Family:
    """Return the table entry of ``config``; raises ConfigError for an unknown or odd pair."""
    if config.emb_class not in EMBEDDINGS:
        hint = nearest(config.emb_class, EMBEDDINGS)
        raise ConfigError(f"unknown emb_class {config.emb_class!r}{hint}")
    family = EMBEDDINGS[config.emb_class]
    if config.enc_class not in family.encoders:
        hint = nearest(config.enc_class, family.encoders)
        raise ConfigError(f"{config.emb_class} has no encoder {config.enc_class!r}{hint}")
    return family


class Classifier(nn.Module):
    """The model as it is trained; softmax belongs to decoding, not here."""

    def __init__(self, config: Config, shape: dict[str, Any], num_labels: int) -> None:
        """Build the embedding from ``shape`` (see its class), the encoder and the last layer."""
        super().__init__()
        self.embedding = family_of(config).build(config, shape)
        self.encoder = ENCODERS[config.enc_class](config, self.embedding)
        self.dropout = nn.Dropout(config.dropout)
        self.output = nn.Linear(self.encoder.out_size, num_labels)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Map ids ``[batch, seq]`` int64 and mask ``[batch, seq]`` bool to ``[batch, labels]``."""
        vector = self.encoder(self.embedding(ids, mask), mask)
        logits: Tensor = self.output(self.dropout(vector))
        return logits


def state_of(model: nn.Module) -> dict[str, Tensor]:
    """Return the state dict with tied weights once, under the first of their names."""
    once = {name for name, _ in (*model.named_parameters(), *model.named_buffers())}
    return {name: value for name, value in model.state_dict().items() if name in once}


def ties_of(model: nn.Module) -> dict[str, list[str]]:
    """Map each name of ``state_of`` that stands for tied weights to their other names."""
    first: dict[int, str] = {}
    ties: dict[str, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if first.setdefault(id(parameter), name) != name:
            ties.setdefault(first[id(parameter)], []).append(name)
    return ties
