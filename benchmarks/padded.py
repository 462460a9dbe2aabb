"""The reference: MiniLM + CLS trained as the original did, in fp32, padded to n_ctx.

Usage: python -m benchmarks.padded DATA_DIR STEPS [anomaly]
Prints seconds a step and peak memory. The original also left autograd's anomaly detection on.
"""

import json
import resource
import sys
import time
from pathlib import Path

import torch

from model_src.classifier import Classifier
from model_src.config import Config
from model_src.tokenizer import pad_batch
from train import data
from train.pretrained import PRETRAINED

_ROOT = Path(__file__).resolve().parent.parent


def main(data_dir: Path, steps: int, *, anomaly: bool) -> dict[str, float]:
    """Time ``steps`` steps; all are of the same size, so an epoch is a multiple of them."""
    config = Config.load(_ROOT / "configs" / "config-bert-cls.json")
    loaded = data.load(data_dir)
    start = PRETRAINED["bert"](config, [])
    model = Classifier(config, start.shape, len(loaded.labels)).train()
    model.embedding.load_state_dict(start.state)
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.lr, weight_decay=0.01)
    times = []
    for step in range(steps + 1):
        rows = loaded.train[step * config.batch_size : (step + 1) * config.batch_size]
        encoded = start.tokenizer.encode_batch([row.text for row in rows])
        targets = torch.tensor([loaded.labels.index(row.label) for row in rows])
        began = time.perf_counter()
        padded = pad_batch([*encoded, [0] * config.n_ctx], start.tokenizer.pad_id)
        with torch.autograd.set_detect_anomaly(anomaly):
            logits = model(*(part[:-1] for part in padded)).softmax(dim=1)
            torch.nn.functional.cross_entropy(logits, targets).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()
        times.append(time.perf_counter() - began)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    return {"seconds_a_step": sorted(times[1:])[steps // 2], "peak_memory_mb": peak}


if __name__ == "__main__":
    sys.stdout.write(
        json.dumps(main(Path(sys.argv[1]), int(sys.argv[2]), anomaly="anomaly" in sys.argv)) + "\n"
    )
