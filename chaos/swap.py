"""Fault 4: versions are swapped at a constant rate, there and back."""

import time

from tqdm import tqdm

from chaos.outcome import Outcome
from chaos.scene import FIRST, SECOND, Scene
from serving import deploy

_ROUNDS, _IN_SHORT = 20, 1
_RATE, _REST = 100.0, 0.5


def swap(scene: Scene) -> Outcome:
    """Deploy the one and the other; nobody asks twice, so nothing is mended by asking again."""
    rounds = _IN_SHORT if scene.short else _ROUNDS
    switched, undrained = [], 0
    with scene.server() as found:
        with scene.traffic(found, rate=_RATE, attempts=1) as traffic:
            for version in tqdm([SECOND, FIRST] * rounds, desc="swaps", unit=" swaps"):
                time.sleep(_REST)
                done = deploy.deploy(found.run_dir, scene.archives[version])
                undrained += not done.drained
                began = time.monotonic()
                time.sleep(_REST)
                switched.append((version, began, time.monotonic()))
        tally = scene.judge(traffic.records, FIRST, SECOND)
        # between two deployments only the one version may answer
        stale = sum(
            scene.judge([each for each in traffic.records if a < each.began < b], version).wrong
            for version, a, b in switched
        )
    return Outcome(
        passed=tally.right == tally.asked and not stale and not undrained,
        numbers=tally.numbers()
        | {f"answers_of_{version}": count for version, count in sorted(tally.versions.items())}
        | {"swaps": len(switched), "stale": stale, "undrained": undrained},
        said=f"{FIRST} → {SECOND} → {FIRST} by deploy, {rounds} times at {_RATE:.0f} requests/s; "
        f"clients ask once. {tally.complaints}",
    )
