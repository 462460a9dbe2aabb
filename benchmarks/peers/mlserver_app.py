"""The model behind MLServer, batched.

Usage: python -m benchmarks.peers.mlserver_app PORT WORKERS

It writes MLServer's two settings files into the current folder and becomes ``mlserver start``.
"""

import json
import os
import sys
from pathlib import Path

from mlserver import MLModel
from mlserver.codecs import StringCodec
from mlserver.types import InferenceRequest, InferenceResponse

from benchmarks.peers.common import BATCH, load, wait_seconds
from serving.process import free_ports


class Classifier(MLModel):
    """Batches of sentences: one BYTES tensor in, one of JSON out."""

    async def load(self) -> bool:
        """Load the model."""
        self.predictor = load()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Answer a batch."""
        texts = StringCodec.decode_input(payload.inputs[0])
        answers = [json.dumps(answer.as_dict()) for answer in self.predictor.predict(texts)]
        outputs = [StringCodec.encode_output("answer", answers)]
        return InferenceResponse(model_name=self.name, outputs=outputs)


def _settings(port: int, workers: int) -> dict[str, dict[str, object]]:
    grpc, metrics = free_ports(2)
    server = {"host": "127.0.0.1", "http_port": port, "grpc_port": grpc, "metrics_port": metrics}
    model = {"name": "model", "implementation": "benchmarks.peers.mlserver_app.Classifier"}
    # 0 would turn its batches off
    wait = wait_seconds() or 1e-6
    return {
        "settings.json": server | {"debug": False, "parallel_workers": workers},
        "model-settings.json": model | {"max_batch_size": BATCH, "max_batch_time": wait},
    }


if __name__ == "__main__":
    for name, content in _settings(*map(int, sys.argv[1:])).items():
        Path(name).write_text(json.dumps(content), encoding="utf-8")
    os.execv(Path(sys.executable).with_name("mlserver"), ["mlserver", "start", "."])  # noqa: S606
