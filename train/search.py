"""Hyper-parameter search: trials of a config, kept in SQLite, pruned, resumable (Optuna)."""

import contextlib
import dataclasses
import fcntl
import hashlib
import logging
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import optuna
import torch
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import TrialState

from model_src.bundle import OWN
from model_src.config import Config
from model_src.errors import ConfigError, nearest
from model_src.files import atomic_write, refuse_foreign
from train import loop
from train.checkpoint import Checkpoint
from train.data import Data
from train.task import settle

logger = logging.getLogger(__name__)

# What is tried when the user names nothing: for word vectors and for transformers.
SPACES = {
    "glove": [
        "lr=2e-4..5e-3",
        "dropout=0.1..0.5",
        "embedding_dropout=0..0.4",
        "word_dropout=0..0.2",
    ],
    "transformer": ["lr=1e-5..3e-4", "dropout=0..0.3", "word_dropout=0..0.1", "batch_size=32,64"],
}
_DONE = (TrialState.COMPLETE, TrialState.PRUNED)
# Ranges whose ends differ by more than this are searched by order of magnitude.
_LOG = 10
# The names that a search's folder holds; one with any other is not written to.
_OWN = ("study.db*", "config.json", "best", "trial-*", ".trial-*")


class _Pruned(Exception):  # noqa: N818 - no error, a way out of the loop
    """The trial is worse than others were at the same epoch."""


@dataclass(frozen=True)
class Found:
    """The best trial: its measure on valid, its config and where its model lies."""

    value: float
    config: Path
    model: Path
    trials: int
    pruned: int


def distributions(config: Config, space: list[str]) -> dict[str, BaseDistribution]:
    """Read ``KEY=LOW..HIGH`` and ``KEY=A,B,C``.

    Raises:
        ConfigError: for a key or a value that the config does not know.

    """
    found: dict[str, BaseDistribution] = {}
    known = [key.name for key in dataclasses.fields(Config)]
    for item in space:
        key, _, text = item.partition("=")
        if key not in known:
            raise ConfigError(f"unknown key {key!r} in --space {item}{nearest(key, known)}")
        # a list of texts may hold paths with .. in them
        ends = text.split("..") if isinstance(getattr(config, key), int | float) else []
        texts = ends if len(ends) == 2 else text.split(",")
        if len(texts) < 2 or key in found or isinstance(getattr(config, key), list):
            raise ConfigError(
                f"--space {item} must be KEY=LOW..HIGH or KEY=A,B,C, once a key, without lists"
            )
        values = [getattr(config.with_text({key: text}), key) for text in texts]
        low, high = values[0], values[-1]
        if len(ends) != 2:
            found[key] = CategoricalDistribution(values)
        elif isinstance(low, bool) or not isinstance(low, int | float) or not low < high:
            raise ConfigError(f"--space {item}: the range must go from a number to a higher one")
        elif isinstance(low, int):
            found[key] = IntDistribution(low, high)
        else:
            found[key] = FloatDistribution(low, high, log=low > 0 and high / low > _LOG)
    config.refuse_idle(found, "--space", classes(config, found))
    return found


def classes(config: Config, varied: dict[str, BaseDistribution]) -> set[str]:
    """Return every value of emb_class and enc_class that a search tries."""
    found = set()
    for key in ("emb_class", "enc_class"):
        each = varied.get(key)
        choices = each.choices if isinstance(each, CategoricalDistribution) else ()
        found |= set(map(str, choices)) or {getattr(config, key)}
    return found


def search(
    config: Config, data: Data, folder: Path, space: list[str], trials: int, device: torch.device
) -> Found:
    """Run until ``trials`` are finished or pruned; an interrupted search goes on where it was.

    Args:
        config: what the trials have in common.
        data: trials are compared on its valid split; test is not looked at.
        folder: holds ``study.db``, the best config and the best model.
        space: what differs between trials, see ``distributions``.
        trials: how many in all, earlier calls included.
        device: where to train.

    """
    config = settle(config, data)
    varied = distributions(config, space)
    refuse_foreign(folder.resolve(), _OWN)
    refuse_foreign((folder / "best").resolve(), OWN)
    folder.mkdir(parents=True, exist_ok=True)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    name = hashlib.sha256(f"{config.to_json()}{data.fingerprint}{varied}".encode()).hexdigest()
    with _alone(folder):
        study = _study(folder, name, config.seed)
        while len(study.get_trials(states=_DONE)) < trials:
            trial = study.ask(varied)
            number = len(study.get_trials(states=_DONE)) + 1
            logger.info("trial %d of %d: %s", number, trials, trial.params)
            _run(study, trial, dataclasses.replace(config, **trial.params), data, folder, device)
    complete = study.get_trials(states=(TrialState.COMPLETE,))
    every = len(study.get_trials(states=_DONE))
    if not complete:
        raise ConfigError(f"all {every} trials were pruned or diverged: try lower rates of lr")
    chosen = dataclasses.replace(config, **study.best_params)
    atomic_write(folder / "config.json", chosen.to_json())
    pruned = every - len(complete)
    return Found(study.best_value, folder / "config.json", folder / "best", every, pruned)


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold ``folder`` for this search: another one would take its running trial for a dead one."""
    with (folder / "study.db.lock").open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(f"another search is running in {folder}") from None
        yield


def _study(folder: Path, name: str, seed: int) -> optuna.Study:
    """Open or begin the one study of ``folder``; an interrupted trial will be tried again."""
    storage = f"sqlite:///{folder.resolve() / 'study.db'}"
    if set(optuna.get_all_study_names(storage)) - {name}:
        raise ConfigError(
            f"{folder} holds a search with other settings or data: name another --save_path"
        )
    study = optuna.create_study(
        storage=storage,
        study_name=name,
        direction="maximize",
        load_if_exists=True,
        # Epochs count from 1, and the pruner spares steps below n_warmup_steps: the first epoch.
        pruner=optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=2),
    )
    # Another seed for each call: with the same one, a resumed search would repeat its first draws.
    study.sampler = optuna.samplers.TPESampler(seed=seed + len(study.get_trials()))
    for left in study.get_trials(states=(TrialState.RUNNING,)):
        study.tell(left.number, state=TrialState.FAIL)
        study.enqueue_trial(left.params)
    return study


def _run(
    study: optuna.Study,
    trial: optuna.Trial,
    config: Config,
    data: Data,
    folder: Path,
    device: torch.device,
) -> None:
    """Train one trial and tell the study; the best model so far stays in ``best``."""

    def report(entry: loop.Entry) -> None:
        (value,) = (value for name, value in entry.items() if name.startswith("valid_"))
        trial.report(value, entry["epoch"])
        if trial.should_prune():
            raise _Pruned

    # Named by its config: an interrupted trial finds its checkpoint again.
    path = folder / f"trial-{hashlib.sha256(config.to_json().encode()).hexdigest()[:12]}"
    try:
        bundle = loop.train(config, data, path, device=device, on_epoch=report)
    except (_Pruned, loop.DivergedError) as reason:
        logger.info("pruned%s", f": {reason}" if str(reason) else "")
        Checkpoint(path, {}).remove()
        study.tell(trial, state=TrialState.PRUNED)
        return
    except Exception:
        # else every later call would begin with this very trial
        study.tell(trial, state=TrialState.FAIL)
        raise
    metrics = bundle.metrics
    value = metrics[metrics["chosen_by"]]
    finished = study.get_trials(states=(TrialState.COMPLETE,))
    if value > max((t.value or 0.0 for t in finished), default=-1.0):
        shutil.rmtree(folder / "best", ignore_errors=True)
        path.rename(folder / "best")
    else:
        shutil.rmtree(path)
    study.tell(trial, value)
