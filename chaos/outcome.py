"""What came of a fault."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Outcome:
    """Whether it was survived, what was counted (times in ms or s by name), and what was done."""

    passed: bool
    numbers: dict[str, float | int]
    said: str = ""
