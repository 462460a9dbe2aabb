"""Word vectors (GloVe, Pennington et al. 2014): ids to rows of one table."""

from typing import Any

from torch import Tensor, nn

from model_src.config import Config
from model_src.interfaces import Embedding


class GloveEmbedding(Embedding):
    """A table of word vectors, frozen unless ``embedding_trainable``."""

    def __init__(self, config: Config, shape: dict[str, Any]) -> None:
        """Make a table of ``shape["vocab_size"]`` rows of ``shape["hidden_size"]`` values."""
        super().__init__()
        self.hidden_size = shape["hidden_size"]
        self.table = nn.Embedding(shape["vocab_size"], self.hidden_size)
        self.table.weight.requires_grad = config.embedding_trainable
        self.dropout = nn.Dropout(config.embedding_dropout)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Map ids ``[batch, seq]`` and mask ``[batch, seq]`` to ``[batch, seq, hidden]``."""
        vectors: Tensor = self.dropout(self.table(ids))
        return vectors

    def lookups(self) -> list[tuple[nn.Module, int]]:
        """Return the table."""
        return [(self.table, 0)]
