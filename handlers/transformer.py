"""The handler of archives with a transformer."""

import os
from typing import Any

from handlers.base import BaseHandler


class TransformerHandler(BaseHandler):
    """Split into subwords, run the transformer, decode."""

    kind = "transformer"

    def initialize(self, context: Any) -> None:  # noqa: ANN401 - TorchServe's own class
        """Keep the libraries to one thread a worker and off the network, then load."""
        os.environ["TOKENIZERS_PARALLELISM"] = "false"
        os.environ["HF_HUB_OFFLINE"] = "1"
        super().initialize(context)
