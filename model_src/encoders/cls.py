"""The CLS head: the state of one token stands for the sentence."""

import torch
from torch import Tensor

from model_src.config import Config
from model_src.interfaces import Embedding, Encoder


class ClsEncoder(Encoder):
    """Take the first position (BERT, arXiv 1810.04805) or a decoder's last (BART, 1910.13461)."""

    def __init__(self, config: Config, embedding: Embedding) -> None:
        """Keep the width of ``embedding``."""
        super().__init__()
        self.out_size = embedding.hidden_size
        self.last = embedding.summary_last  # ``lean`` clears it where no other state is left

    def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """Map hidden ``[batch, seq, hidden]`` and mask ``[batch, seq]`` to ``[batch, hidden]``."""
        if not self.last:
            return hidden[:, 0]
        end = mask.sum(dim=1, dtype=torch.int64) - 1
        return hidden.gather(1, end[:, None, None].expand(-1, 1, self.out_size))[:, 0]
