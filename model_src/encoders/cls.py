"""The CLS head (BERT, arXiv 1810.04805): the state of the first token stands for the sentence."""

from torch import Tensor

from model_src.config import Config
from model_src.interfaces import Encoder


class ClsEncoder(Encoder):
    """Take the first position."""

    def __init__(self, config: Config, hidden_size: int) -> None:
        """Keep the width ``hidden_size``."""
        super().__init__()
        self.out_size = hidden_size

    def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """Map hidden ``[batch, seq, hidden]`` to ``[batch, hidden]``."""
        return hidden[:, 0]
