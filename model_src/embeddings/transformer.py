"""Contextual vectors from a transformer of the Hugging Face library."""

from typing import Any, Self

import torch
from torch import Tensor, nn

from model_src.config import Config
from model_src.interfaces import Embedding

# Classes that would otherwise make a pooler, which no encoder here uses.
_POOLED = {"bert", "albert", "roberta", "mpnet"}


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
        pooler = {"add_pooling_layer": False} if hf_config.model_type in _POOLED else {}
        self.model = AutoModel.from_config(hf_config, **pooler)
        self.fixed = config.bert_use_feature_based
        self.model.requires_grad_(not self.fixed)

    def train(self, mode: bool = True) -> Self:  # noqa: FBT001, FBT002 - torch's own signature
        """Leave a fixed network in evaluation mode: its features must not vary by dropout."""
        super().train(mode)
        if self.fixed:
            self.model.eval()
        return self

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Map ids ``[batch, seq]`` and mask ``[batch, seq]`` to ``[batch, seq, hidden]``."""
        states: Tensor = self.model(ids, attention_mask=mask.to(torch.int64)).last_hidden_state
        return states

    def lookups(self) -> list[tuple[nn.Module, int]]:
        """Return the table of subwords, without positions."""
        return [(self.model.get_input_embeddings(), 0)]


class BartEmbedding(TransformerEmbedding):
    """The last decoder states; the decoder reads the sentence itself (arXiv 1910.13461, 3.1).

    The decoder is causal and padding is on the right, so real positions never see it.
    """

    summary_last = True

    def lookups(self) -> list[tuple[nn.Module, int]]:
        """Return both tables: the decoder sees a token one step after a start of its own."""
        return [(self.model.encoder.embed_tokens, 0), (self.model.decoder.embed_tokens, 1)]
