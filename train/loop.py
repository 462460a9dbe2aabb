"""The epoch loop: a config and data become a model directory, resumable after an interruption."""

import copy
import dataclasses
import hashlib
import json
import logging
import pickle
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor
from torch.nn.utils import clip_grad_norm_
from torch.optim.lr_scheduler import LambdaLR
from tqdm import tqdm

from model_src.bundle import METRICS, OWN, WEIGHTS, Bundle, seal
from model_src.classifier import Classifier, family_of, state_of
from model_src.config import Config
from model_src.errors import ConfigError
from model_src.files import atomic_dir, atomic_write, refuse_foreign
from model_src.tokenizer import FILE
from train.batches import Batch, Features
from train.data import Data
from train.pretrained import PRETRAINED, Pretrained
from train.task import TASKS, settle

logger = logging.getLogger(__name__)


@dataclass
class _Progress:
    """What changes from epoch to epoch beside the weights; part of a checkpoint."""

    measure: str = ""
    history: list[dict[str, Any]] = field(default_factory=list)
    best: float = -1.0
    stale: int = 0
    decay: float = 1.0


def train(config: Config, data: Data, save_path: Path) -> Bundle:
    """Train on ``data.train``, choose the epoch on ``data.valid``, write a model directory.

    A checkpoint beside ``save_path`` is written after each epoch and taken up again by the next
    call with an equal config and equal data; the result is the one of an undisturbed run.
    """
    family_of(config)
    config = settle(config, data)
    refuse_foreign(save_path.resolve(), OWN)
    torch.manual_seed(config.seed)
    start = PRETRAINED[config.emb_class](config, [example.text for example in data.train])
    model = Classifier(config, start.shape, len(data.labels))
    model.embedding.load_state_dict(start.state)
    fit = _Fit(config, data, model, start, save_path)
    progress = fit.run()
    return _write(save_path, config, data, start, fit.best_state, progress)


class _Fit:
    """One training run with the state that a checkpoint needs."""

    def __init__(
        self, config: Config, data: Data, model: Classifier, start: Pretrained, save_path: Path
    ) -> None:
        self.config, self.model = config, model
        self.task = TASKS[data.multi_label](config)
        self.train = Features(data.train, start.tokenizer, data.labels, self.task)
        self.valid = Features(data.valid, start.tokenizer, data.labels, self.task)
        self.progress = _Progress()
        self.optimizer = torch.optim.AdamW(_groups(model, config), lr=config.lr)
        steps = config.epoch * -(-len(data.train) // config.batch_size)
        warmup = max(1, round(steps * config.warmup_ratio))
        self.schedule = LambdaLR(
            self.optimizer,
            lambda step: (
                self.progress.decay
                * min((step + 1) / warmup, (steps - step) / max(1, steps - warmup))
            ),
        )
        self.amp = has_bf16() if config.use_amp is None else config.use_amp
        self.best_state: dict[str, Tensor] = {}
        self.checkpoint = _checkpoint(save_path)
        self.identity = config.to_json() + data.fingerprint + _digest(start)

    def run(self) -> _Progress:
        self._resume()
        progress, config = self.progress, self.config
        for epoch in range(len(progress.history) + 1, config.epoch + 1):
            if progress.stale >= config.patience:
                break
            began = time.perf_counter()
            loss = self._epoch(epoch)
            progress.measure, value = self._measure()
            seconds = round(time.perf_counter() - began, 1)
            entry = {"epoch": epoch, "loss": loss, progress.measure: value, "seconds": seconds}
            progress.history.append(entry)
            logger.info(json.dumps(entry))
            if value > progress.best:
                progress.best, progress.stale = value, 0
                self.best_state = copy.deepcopy(state_of(self.model))
            else:
                progress.stale += 1
                if progress.stale % config.lr_decay_steps == 0:
                    progress.decay *= config.lr_decay_rate
            self._save()
        return progress

    def _epoch(self, epoch: int) -> float:
        """Train one epoch and return the mean loss; random numbers depend on seed and epoch."""
        config = self.config
        torch.manual_seed(config.seed * 1000 + epoch)
        self.model.train()
        total, count = 0.0, 0
        batches = self.train.batches(config.batch_size, f"{config.seed}-{epoch}")
        with tqdm(batches, desc=f"epoch {epoch}/{config.epoch}", unit=" batches") as bar:
            for batch in bar:
                loss = self._step(batch)
                total, count = total + loss * len(batch[2]), count + len(batch[2])
                bar.set_postfix(loss=f"{total / count:.4f}", refresh=False)
        return round(total / count, 6)

    def _step(self, batch: Batch) -> float:
        ids, mask, targets = batch
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.amp):
            logits = self.model(ids, mask)
        loss = self.task.loss(logits.float(), targets)
        if not loss.isfinite():
            raise ConfigError(f"training diverged (the loss is {loss.item()}): lower lr")
        self.optimizer.zero_grad()
        loss.backward()
        clip_grad_norm_(self.model.parameters(), self.config.max_grad_norm)
        self.optimizer.step()
        self.schedule.step()
        return loss.item()

    @torch.inference_mode()
    def _measure(self) -> tuple[str, float]:
        """Return the task's measure on valid, in fp32 as it will be served, as it is recorded."""
        self.model.eval()
        batches = self.valid.batches(self.config.batch_size)
        logits = torch.cat([self.model(ids, mask) for ids, mask, _ in batches])
        name, value = self.task.measure(logits, torch.cat([targets for _, _, targets in batches]))
        return f"valid_{name}", round(value, 6)

    def _save(self) -> None:
        self.checkpoint.parent.mkdir(parents=True, exist_ok=True)
        scratch = self.checkpoint.with_suffix(".partial")
        parts = {name: getattr(self, name).state_dict() for name in self._PARTS}
        own = {"identity": self.identity, "best_state": self.best_state}
        try:
            torch.save(parts | own | {"progress": dataclasses.asdict(self.progress)}, scratch)
            scratch.replace(self.checkpoint)
        finally:
            scratch.unlink(missing_ok=True)

    def _resume(self) -> None:
        if not self.checkpoint.exists():
            return
        try:
            saved = torch.load(self.checkpoint, weights_only=True)
        except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError):
            saved = {}
        if saved.get("identity") != self.identity:
            logger.info("The checkpoint found is damaged or of another run: starting anew.")
            return
        for name in self._PARTS:
            getattr(self, name).load_state_dict(saved[name])
        self.best_state = saved["best_state"]
        self.progress = _Progress(**saved["progress"])
        logger.info("Resumed after epoch %d.", len(self.progress.history))

    _PARTS = ("model", "optimizer", "schedule")


def has_bf16() -> bool:
    """Tell whether this CPU multiplies bf16 in hardware, where autocast is about 2x faster."""
    path = Path("/proc/cpuinfo")
    flags = path.read_text(encoding="utf-8") if path.exists() else ""
    return "avx512_bf16" in flags or "amx_bf16" in flags


def _checkpoint(save_path: Path) -> Path:
    """Return where the unfinished training of a model directory is kept."""
    return save_path.with_name(f".{save_path.name}.checkpoint.pt")


def _digest(start: Pretrained) -> str:
    """Return a digest of the vectors or the checkpoint that training starts with."""
    digest = hashlib.sha256(json.dumps(start.shape).encode())
    for _, value in sorted(start.state.items()):
        digest.update(value.contiguous().numpy().tobytes())
    with tempfile.TemporaryDirectory() as folder:
        start.tokenizer.save(Path(folder))
        digest.update((Path(folder) / FILE).read_bytes())
    return digest.hexdigest()


def _groups(model: Classifier, config: Config) -> list[dict[str, Any]]:
    """Decay matrices only: no biases, norms or word vectors (words not in train would fade)."""
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    decayed = [p for name, p in trained if p.dim() > 1 and name != "embedding.table.weight"]
    chosen = {id(p) for p in decayed}
    kept = [p for _, p in trained if id(p) not in chosen]
    return [
        {"params": decayed, "weight_decay": config.weight_decay},
        {"params": kept, "weight_decay": 0.0},
    ]


def _write(
    save_path: Path,
    config: Config,
    data: Data,
    start: Pretrained,
    state: dict[str, Tensor],
    progress: _Progress,
) -> Bundle:
    bundle = Bundle(save_path, "model", config, data.labels, start.shape, start.tokenizer)
    with atomic_dir(save_path, OWN) as folder:
        bundle.write_common(folder)
        weights = save({name: value.contiguous() for name, value in state.items()})
        (folder / WEIGHTS).write_bytes(weights)
        seal(folder, "model", (WEIGHTS,))
        measured = {
            "data": data.fingerprint,
            "chosen_by": progress.measure,
            progress.measure: progress.best,
            "history": progress.history,
        }
        atomic_write(folder / METRICS, json.dumps(measured, indent=2) + "\n")
    _checkpoint(save_path).unlink(missing_ok=True)
    return bundle
