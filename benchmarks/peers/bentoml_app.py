"""The model behind BentoML with its adaptive batching: ``bentoml serve`` names this class."""

import os
from typing import Any

import bentoml

from benchmarks.peers.common import BATCH, WORKERS, load


# no process in front of the model, where ours has Java: one more that has the model
@bentoml.service(
    workers=int(os.environ.get(WORKERS, "1")) + 1, logging={"access": {"enabled": False}}
)
class Classifier:
    """Batches of sentences."""

    def __init__(self) -> None:
        """Load the model."""
        self.predictor = load()

    @bentoml.api(batchable=True, max_batch_size=BATCH)
    def predict(self, texts: list[str]) -> list[dict[str, Any]]:
        """Answer a batch."""
        return [answer.as_dict() for answer in self.predictor.predict(texts)]
