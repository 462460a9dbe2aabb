"""The model behind LitServe, batched.

Usage: python -m benchmarks.peers.litserve_app PORT WORKERS
"""

import sys
from typing import Any

from litserve import LitAPI, LitServer

from benchmarks.peers.common import BATCH, load, wait_seconds
from model_src.decode import Prediction


class Api(LitAPI):
    """Batches of sentences."""

    def setup(self, device: str) -> None:
        """Load the model."""
        self.predictor = load()

    def decode_request(self, request: dict[str, str]) -> str:
        """Return the sentence."""
        return request["text"]

    def batch(self, inputs: list[str]) -> list[str]:
        """Leave the sentences a list."""
        return inputs

    def predict(self, texts: list[str]) -> list[Prediction]:
        """Answer a batch."""
        return self.predictor.predict(texts)

    def unbatch(self, output: list[Prediction]) -> list[Prediction]:
        """Leave the answers a list."""
        return output

    def encode_response(self, output: Prediction) -> dict[str, Any]:
        """Return the answer to one sentence."""
        return output.as_dict()


if __name__ == "__main__":
    port, workers = map(int, sys.argv[1:])
    api = Api(max_batch_size=BATCH, batch_timeout=wait_seconds())
    server = LitServer(
        api, accelerator="cpu", devices=1, workers_per_device=workers, fast_queue=True
    )
    server.run(
        host="127.0.0.1",
        port=port,
        num_api_servers=1,
        log_level="warning",
        generate_client_file=False,
        access_log=False,
    )
