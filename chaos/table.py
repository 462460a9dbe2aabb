"""The table of faults."""

from collections.abc import Callable
from dataclasses import dataclass

from chaos import malformed
from chaos.outcome import Outcome
from chaos.scene import Scene


@dataclass(frozen=True)
class Fault:
    """One entry: what must be survived, in a sentence, and how it is brought about and judged."""

    title: str
    run: Callable[[Scene], Outcome]


FAULTS: dict[str, Fault] = {
    "malformed": Fault(
        "Malformed requests and naughty sentences: a JSON error or the offline answer, no 5xx, no "
        "worker lost, good batch mates answered.",
        malformed.run,
    ),
}
