"""Contextual vectors from a transformer of the Hugging Face library."""

from typing import Any

import torch
from torch import Tensor

from model_src.config import Config
from model_src.interfaces import Embedding


class TransformerEmbedding(Embedding):
    """The last hidden states of an encoder, built from its own configuration alone."""

    def __init__(self, config: Config, shape: dict[str, Any]) -> None:
        """Build the network that ``shape`` (a transformers config as JSON) describes."""
        # Imported here: a second and 100 MB that GloVe models never pay.
        from transformers import AutoConfig, AutoModel
        from transformers.utils import logging

        logging.set_verbosity_error()  # its notes are on heads and losses that are not used here
        super().__init__()
        hf_config = AutoConfig.for_model(**shape)
        self.hidden_size = hf_config.hidden_size
        self.model = AutoModel.from_config(
            hf_config, attn_implementation="sdpa", add_pooling_layer=False
        )

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Map ids ``[batch, seq]`` and mask ``[batch, seq]`` to ``[batch, seq, hidden]``."""
        states: Tensor = self.model(ids, attention_mask=mask.to(torch.int64)).last_hidden_state
        return states
