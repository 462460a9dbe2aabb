"""Settings of a served model that were tried, and the rule by which one of them is chosen."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from model_src.errors import ServerError
from serving.load import Load

# How many clients ask at once: somebody alone, some, and more than the cores can serve.
CLIENTS = (1, 16, 64)
# Settings whose rates differ by less are equal: then the fewer workers, each of which is a copy of
# the model in memory. A server-wide line must gain more than the second, for all models pay for it.
_EQUAL, _GAIN = 0.03, 0.05
# Rounds that differ by more say that the machine did something else meanwhile.
BUSY = 0.15
# How much of the lowest p50 a setting may lose to be chosen for latency.
_SLACK = 0.10


@dataclass(frozen=True)
class Setting:
    """What ``model-config.yaml`` says of workers and batches."""

    workers: int
    threads: int
    batch: int

    @classmethod
    def of(cls, settings: dict[str, Any]) -> "Setting":
        """Return what the ``settings`` of an archive say; what they leave out is TorchServe's."""
        threads = (settings.get("handler") or {}).get("num_threads", 1)
        workers, batch = (int(settings.get(name, 1)) for name in ("minWorkers", "batchSize"))
        return cls(workers, int(threads), batch)

    def into(self, settings: dict[str, Any]) -> dict[str, Any]:
        """Return the ``settings`` of an archive with these in their place."""
        return settings | {
            "minWorkers": self.workers,
            "maxWorkers": self.workers,
            "batchSize": self.batch,
            "handler": dict(settings.get("handler") or {}) | {"num_threads": self.threads},
        }

    def __str__(self) -> str:
        """Return it in words."""
        workers = "1 worker" if self.workers == 1 else f"{self.workers} workers"
        threads = "1 thread" if self.threads == 1 else f"{self.threads} threads"
        return f"{workers} of {threads}, batches of up to {self.batch}"


@dataclass
class Trial:
    """One setting and what clients have met with it, by their number and round after round."""

    setting: Setting
    # what of config.properties was another
    properties: dict[str, str] = field(default_factory=dict)
    loads: dict[int, list[Load]] = field(default_factory=lambda: {each: [] for each in CLIENTS})

    @property
    def errors(self) -> int:
        """Count what was not answered as it should be."""
        return sum(load.errors for loads in self.loads.values() for load in loads)

    def rates(self, clients: int) -> list[float]:
        """Return the answers a second of each round."""
        return [load.rate for load in self.loads[clients]]

    def rate(self, clients: int) -> float:
        """Return their median."""
        return statistics.median(self.rates(clients))

    def ms(self, clients: int, share: float = 0.5) -> float:
        """Return the milliseconds within which a share of the answers came, median over rounds."""
        return statistics.median(load.at(share) for load in self.loads[clients])

    def as_dict(self) -> dict[str, Any]:
        """Return the fields of the evidence."""
        return {
            "workers": self.setting.workers,
            "threads": self.setting.threads,
            "batch_size": self.setting.batch,
            "properties": self.properties,
            "errors": self.errors,
            "clients": {
                str(clients): {
                    "requests_per_second": round(self.rate(clients), 1),
                    "p50_ms": round(self.ms(clients), 3),
                    "p99_ms": round(self.ms(clients, 0.99), 3),
                    "requests_per_second_by_round": [round(r, 1) for r in self.rates(clients)],
                }
                for clients in self.loads
            },
        }


@dataclass(frozen=True)
class Aim:
    """What to choose for: the highest rate at so many clients, where one client is not too slow."""

    clients: int
    slack: float = math.inf

    @property
    def rule(self) -> str:
        """The rule of choice in one sentence."""
        among = (
            f"settings whose p50 at 1 client is within {self.slack:.0%} of the best"
            if self.slack < math.inf
            else "all settings"
        )
        return (
            f"the most requests/s at {self.clients} clients among {among}, and of those within "
            f"{_EQUAL:.0%} of that the one with the fewest workers and threads"
        )


AIMS = {"latency": Aim(16, _SLACK), "throughput": Aim(64)}


def best(trials: Sequence[Trial], aim: Aim) -> Trial:
    """Return the trial that the rule of ``aim`` chooses.

    Raises:
        ServerError: when each of them has met errors.

    """
    sound = [each for each in trials if not each.errors]
    if not sound:
        raise ServerError("requests failed with every setting that was tried; nothing is changed")
    slowest = (1 + aim.slack) * min(each.ms(1) for each in sound)
    quick = [each for each in sound if each.ms(1) <= slowest]
    enough = (1 - _EQUAL) * max(each.rate(aim.clients) for each in quick)
    equal = [each for each in quick if each.rate(aim.clients) >= enough]
    return min(equal, key=lambda each: (each.setting.workers * each.setting.threads, each.ms(1)))


def unsteadiness(trials: Sequence[Trial], aim: Aim) -> float:
    """Return by how much the rounds of a trial differ, a share of their median, middle trial."""
    return statistics.median(
        (max(rates) - min(rates)) / each.rate(aim.clients)
        for each in trials
        if (rates := each.rates(aim.clients)) and each.rate(aim.clients)
    )


def gains(before: Trial, after: Trial, aim: Aim) -> bool:
    """Tell whether ``after`` is faster by more than noise, in every round, and nowhere slower."""
    if before.errors or after.errors:
        return False
    pairs = zip(before.rates(aim.clients), after.rates(aim.clients), strict=True)
    ratios = [new / old for old, new in pairs]
    return (
        statistics.median(ratios) > 1 + _GAIN
        and min(ratios) > 1
        and after.ms(1) <= (1 + _GAIN) * before.ms(1)
        and all(after.rate(each) >= (1 - _GAIN) * before.rate(each) for each in CLIENTS)
    )
