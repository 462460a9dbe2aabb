"""Every format that works here is tried on a model, and the best that passes is kept."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from model_src.backends import FORMATS, runnable
from model_src.bundle import OWN, Bundle
from model_src.errors import RefusedError, UserError
from model_src.files import atomic_dir
from serving.export import Candidate, advice, judge, keep, load_source, make


@dataclass(frozen=True)
class Aim:
    """What to choose for: the candidate of the lowest cost is kept."""

    summary: str
    cost: Callable[[Candidate], float]
    exact: bool = False


AIMS = {
    "latency": Aim(
        "fewest ms for a sentence of 12 tokens and one of 30",
        lambda each: sum(each.measured["latency_ms"].values()),
    ),
    "throughput": Aim(
        "most sentences a second in batches of 32",
        lambda each: -each.measured["sentences_per_second"],
    ),
    "portability": Aim(
        "fp32, and depends on as little as can be",
        lambda each: FORMATS[each.name].depends,
        exact=True,
    ),
}


def choose(
    model_dir: Path,
    aim: str,
    save_path: Path,
    texts: list[str],
    gold: list[str] | None = None,
    *,
    accept: bool = False,
) -> list[Candidate]:
    """Keep at ``save_path`` the format of ``model_dir`` that is best for ``aim``, of ``AIMS``.

    Other arguments and errors are those of ``export``; with ``accept`` a format that breaks a rule
    is kept where none passes.

    Returns:
        All formats for this machine, the kept one first, the rest in the order of ``FORMATS``.

    """
    reference = load_source(model_dir, save_path)
    with atomic_dir(save_path, OWN) as folder:
        bar = tqdm(runnable(), desc="export", unit=" formats")
        tried = [_try(reference.bundle, name, folder, AIMS[aim]) for name in bar]
        made = [each for each in tried if each.predictor]
        if made:
            judge(reference, made, texts, gold)
            made = [each for each in made if each.predictor]
        passing = [each for each in made if not each.problem] or (made if accept else [])
        if not passing:
            said = "; ".join(f"{each.name} {each.problem}" for each in tried)
            raise RefusedError(f"no format passes ({said}): {advice(gold)}")
        best = min(passing, key=AIMS[aim].cost)
        keep(best, reference.bundle, folder)
    return [best, *(each for each in tried if each is not best)]


def _try(source: Bundle, name: str, folder: Path, aim: Aim) -> Candidate:
    """Make one candidate, or say why there is none."""
    if aim.exact and not FORMATS[name].exact:
        return Candidate(name, problem="is no fp32 format")
    try:
        return make(source, name, folder / name)
    except (UserError, RuntimeError) as reason:  # a package or a compiler that is missing
        return Candidate(name, problem="does not work here, for " + str(reason).partition("\n")[0])
