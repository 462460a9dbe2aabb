"""The epoch loop: a config and data become a model directory, resumable after an interruption."""

import copy
import dataclasses
import json
import logging
import math
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor
from tqdm import tqdm

from model_src.bundle import MANIFEST, METRICS, OWN, WEIGHTS, Bundle, seal
from model_src.classifier import Classifier, family_of, state_of
from model_src.config import Config
from model_src.errors import ConfigError
from model_src.files import atomic_dir, atomic_write, refuse_foreign, sha256
from train import optimizer, parallel
from train.batches import Batch, Features, WordDropout
from train.checkpoint import Checkpoint, digest
from train.data import Data
from train.distill import teach
from train.loss import Loss
from train.precision import Precision
from train.pretrained import PRETRAINED
from train.quick import quicken
from train.task import TASKS, Task, settle

logger = logging.getLogger(__name__)

Entry = dict[str, Any]

# Another one where the loop computes otherwise: a checkpoint of another is not taken up.
_VERSION = 4


class DivergedError(ConfigError):
    """The loss or the answers are no numbers any more."""


@dataclass
class _Progress:
    """What changes from epoch to epoch beside the weights; part of a checkpoint."""

    measure: str = ""
    history: list[Entry] = field(default_factory=list)
    best: float = -1.0
    stale: int = 0
    decay: float = 1.0


def train(
    config: Config,
    data: Data,
    save_path: Path,
    *,
    device: torch.device | None = None,
    teacher: Path | None = None,
    on_epoch: Callable[[Entry], None] | None = None,
) -> Bundle:
    """Train on ``data.train``, choose the epoch on ``data.valid``, write a model directory.

    Of epochs that are equal on valid the last is taken.

    A checkpoint beside ``save_path`` is written after each epoch and taken up again by the next
    call with an equal config and equal data; the result is the one of an undisturbed run.

    Args:
        config: the model and its recipe.
        data: the three splits; test is not looked at.
        save_path: the folder to make or to replace.
        device: where to compute, the CPU by default.
        teacher: a model or export directory whose answers are learned too.
        on_epoch: called with each line of the history.

    """
    family_of(config)
    config = settle(config, data)
    refuse_foreign(save_path.resolve(), OWN)
    for key in ("distill_copies", "distill_weight", "distill_temperature"):
        if not teacher and getattr(config, key) != getattr(Config, key):
            raise ConfigError(
                f"{key} is for learning from a teacher: give train --teacher DIR, too"
            )
    if teacher and teacher.resolve() == save_path.resolve():
        raise ConfigError(f"{teacher} cannot be both teacher and student: name another --save_path")
    if teacher and config.class_weights and config.distill_weight == 1:
        raise ConfigError(
            "class_weights is true, but with --teacher and distill_weight 1 labels play no part: "
            "give --distill_weight below 1, or leave class_weights out"
        )
    device = device or torch.device("cpu")
    precision = Precision(config, device)
    examples, soft = data.train, None
    if teacher:
        taught = teach(teacher, config, examples, data.labels, device)
        examples, soft = taught.examples, taught.logits
    torch.manual_seed(config.seed)
    start = PRETRAINED[config.emb_class](config, [example.text for example in data.train])
    model = Classifier(config, start.shape, len(data.labels))
    model.embedding.load_state_dict(start.state)
    task = TASKS[data.multi_label]
    features = Features(examples, start.tokenizer, data.labels, task, soft)
    drop_words = WordDropout(start.tokenizer, config.word_dropout)
    blank = {drop_words.blank} if config.word_dropout else set()
    quicken(model, device, blank.union(*features.rows))
    taught_by = sha256(teacher / MANIFEST) if teacher else ""
    identity = json.loads(config.to_json()) | {
        "loop": _VERSION,
        "data": data.fingerprint,
        "pretrained weights": digest(start),
        "teacher": taught_by,
        "precision": str(precision),
        "number of processes": parallel.world(),
    }
    fit = _Fit(
        config,
        model.to(device),
        precision,
        features,
        Features(data.valid, start.tokenizer, data.labels, task),
        task,
        drop_words,
        Checkpoint(save_path, identity),
    )
    fit.run(on_epoch)
    made = Bundle(save_path, "model", config, data.labels, start.shape, start.tokenizer)
    if parallel.rank() == 0:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        measured = {
            "data": data.fingerprint,
            "teacher": taught_by,
            "computed_in": f"{precision}, {torch.get_num_threads()} threads",
            "peak_memory_mb": peak,
        }
        _write(made, fit, measured)
    parallel.wait()
    return made


class _Fit:
    """One training run with the state that a checkpoint needs."""

    _PARTS = ("model", "optimizer", "schedule", "scaler")

    def __init__(
        self,
        config: Config,
        model: Classifier,
        precision: Precision,
        train: Features,
        valid: Features,
        task: Task,
        drop_words: WordDropout,
        checkpoint: Checkpoint,
    ) -> None:
        self.config, self.model, self.checkpoint = config, model, checkpoint
        self.train, self.valid, self.task, self.drop_words = train, valid, task, drop_words
        self.device = next(model.parameters()).device
        self.loss = Loss(config, task, train.targets, model.output.out_features)
        self.precision, self.scaler = precision, precision.scaler
        self.progress = _Progress()
        self.optimizer = optimizer.make(model, config)
        micro = -(-len(train.rows) // config.batch_size)
        steps = config.epoch * -(-micro // config.gradient_accumulation_steps)
        self.schedule = optimizer.schedule(
            self.optimizer, config, steps, lambda: self.progress.decay
        )
        self.best_state: dict[str, Tensor] = {}
        self.parallel = parallel.wrap(model)

    def run(self, on_epoch: Callable[[Entry], None] | None) -> None:
        self._resume()
        progress, config = self.progress, self.config
        for epoch in range(len(progress.history) + 1, config.epoch + 1):
            if progress.stale >= config.patience:
                break
            began = time.perf_counter()
            loss = self._epoch(epoch)
            progress.measure, value = self._measure()
            value = parallel.agree(value)
            seconds = round(time.perf_counter() - began, 1)
            entry = {"epoch": epoch, "loss": loss, progress.measure: value, "seconds": seconds}
            progress.history.append(entry)
            gained = value > progress.best
            if value >= progress.best:
                # of equal epochs the last: valid is small, and the later ones saw a lower rate
                progress.best = value
                self.best_state = copy.deepcopy(state_of(self.model))
            if gained:
                progress.stale = 0
            else:
                progress.stale += 1
                if progress.stale % config.lr_decay_steps == 0:
                    progress.decay *= config.lr_decay_rate
                    # the next step's rate was set by the step before valid was measured
                    for group in self.optimizer.param_groups:
                        group["lr"] *= config.lr_decay_rate
            if parallel.rank() == 0:
                # saved before it is told: an epoch that was told is never trained again
                self._save()
                logger.info(json.dumps(entry))
                if on_epoch:
                    on_epoch(entry)

    def _epoch(self, epoch: int) -> float:
        """Train one epoch and return the mean loss; random numbers depend on seed and epoch."""
        config, rank, world = self.config, parallel.rank(), parallel.world()
        torch.manual_seed(config.seed * 1000 + epoch + rank * 1_000_003)
        self.model.train()
        total, count = 0.0, 0
        batches = self.train.batches(config.batch_size, f"{config.seed}-{epoch}", rank, world)
        size = config.gradient_accumulation_steps
        steps = [batches[i : i + size] for i in range(0, len(batches), size)]
        name = f"epoch {epoch}/{config.epoch}"
        with tqdm(steps, desc=name, unit=" steps", disable=rank > 0) as bar:
            for step in bar:
                rows = sum(batch.rows for batch in step)
                total, count = total + self._step(step, rows) * rows, count + rows
                bar.set_postfix(loss=f"{total / count:.4f}", refresh=False)
        return round(parallel.mean(total / count), 6)

    def _step(self, batches: list[Batch], rows: int) -> float:
        """Take one step for ``batches`` of ``rows`` sentences; return this process's mean loss."""
        total = 0.0
        for i, whole in enumerate(batches, 1):
            batch = whole.to(self.device)
            ids, mask = (x.repeat(self.loss.passes, 1) for x in (batch.ids, batch.mask))
            # Processes exchange gradients once a step, with the last of its batches.
            with parallel.silent(self.parallel, until=i == len(batches)):
                with self.precision.autocast:
                    logits = self.parallel(self.drop_words(ids), mask)
                loss = self.loss(logits.float(), batch) * (batch.share * batch.rows / rows)
                total += loss.item()
                if not math.isfinite(total):
                    raise DivergedError(f"training diverged (the loss is {total}): lower lr")
                self.precision.backward(loss)
        self.precision.step(self.optimizer, self.model, self.config.max_grad_norm)
        self.schedule.step()
        return total

    @torch.inference_mode()
    def _measure(self) -> tuple[str, float]:
        """Return the task's measure on valid, in fp32 as it will be served, as it is recorded."""
        self.model.eval()
        logits, targets = [], []
        for whole in self.valid.batches(self.config.batch_size):
            batch = whole.to(self.device)
            logits.append(self.model(batch.ids, batch.mask).cpu())
            targets.append(whole.targets)
        every = torch.cat(logits)
        if not every.isfinite().all():
            raise DivergedError("training diverged (the answers on valid are no numbers): lower lr")
        name, value = self.task.measure(every, torch.cat(targets))
        return f"valid_{name}", round(value, 6)

    def _save(self) -> None:
        parts = {name: getattr(self, name).state_dict() for name in self._PARTS}
        own = {"best_state": self.best_state, "progress": dataclasses.asdict(self.progress)}
        self.checkpoint.write(parts | own)

    def _resume(self) -> None:
        saved = self.checkpoint.read()
        if saved is None:
            return
        for name in self._PARTS:
            getattr(self, name).load_state_dict(saved[name])
        self.best_state = saved["best_state"]
        self.progress = _Progress(**saved["progress"])
        logger.info("Resumed after epoch %d.", len(self.progress.history))


def _write(bundle: Bundle, fit: _Fit, measured: dict[str, Any]) -> None:
    with atomic_dir(bundle.folder, OWN) as folder:
        bundle.write_common(folder)
        weights = {name: value.cpu().contiguous() for name, value in fit.best_state.items()}
        (folder / WEIGHTS).write_bytes(save(weights))
        seal(folder, "model", (WEIGHTS,))
        chosen = {"chosen_by": fit.progress.measure, fit.progress.measure: fit.progress.best}
        found = measured | chosen | {"history": fit.progress.history}
        atomic_write(folder / METRICS, json.dumps(found, indent=2) + "\n")
    fit.checkpoint.remove()
