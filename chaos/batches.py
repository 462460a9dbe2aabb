"""How many requests the batches of a server had, by its own metrics."""

import re
from collections import Counter

import requests

from handlers.ledger import BATCHES
from serving.server import Server

_LINE = re.compile(rf"^{BATCHES}\{{.*\bsize=\"(\d+)\".*\}} (\S+)$", re.MULTILINE)


def batches(found: Server) -> Counter[int]:
    """Return how many batches there were of each size, rounded up to a power of two.

    What was counted in the last second may be missing.
    """
    with requests.Session() as session:
        session.trust_env = False  # no proxy of the environment
        url = f"http://127.0.0.1:{found.ports['metrics']}/metrics"
        text = session.get(url, timeout=20).text
    counts = Counter[int]()
    for size, count in _LINE.findall(text):
        counts[int(size)] += round(float(count))
    return counts
