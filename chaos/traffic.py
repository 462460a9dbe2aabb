"""Steady traffic: clients that ask at a constant rate, and what came of each request."""

import itertools
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from tqdm import tqdm

from chaos.parts import chosen, sentence, table
from model_src.errors import ServerError
from serving.client import AnswerError

# Returns the answers to some sentences in their order, or raises ServerError.
Ask = Callable[[list[str]], list[dict[str, Any]]]
_OK = 200
# Longest wait for the last answers; a client gives up before that.
_LAST = 120.0


@dataclass(frozen=True, eq=False)
class Record:
    """One request; moments are of ``time.monotonic``."""

    numbers: range  # of its sentences
    due: float  # when it was to be sent
    began: float
    ended: float
    status: int  # 200, that of another answer, or 0 where there was none
    scores: np.ndarray  # [sentences, labels], or of no sentence
    best: np.ndarray  # [sentences, 2]: the number and the score of each label given
    said: str = ""


class Traffic:
    """Threads, one a client, that send until the ``with`` ends or for ``most`` requests.

    A request is due at its time whether or not the ones before are answered; where no client is
    free it is late, and its latency counts from when it was due. Without a rate each client sends
    as soon as it has its answer.
    """

    def __init__(
        self,
        asks: Sequence[Ask],
        numbers: Iterator[int],
        *,
        rate: float = 0.0,
        most: int = 0,
        sizes: tuple[int, ...] = (1,),
    ) -> None:
        """Take how each client asks.

        Args:
            asks: one for each client.
            numbers: where the numbers of sentences come from.
            rate: requests a second of all clients together; 0 is as many as they can.
            most: requests after which to end; 0 is none.
            sizes: sentences a request, one size after the other.

        """
        self.records: list[Record] = []
        self._open: dict[int, tuple[range, float]] = {}
        self._numbers, self._rate, self._most, self._sizes = numbers, rate, most, sizes
        self._over, self._lock = threading.Event(), threading.Lock()
        self._began, self._slots = time.monotonic(), itertools.count()
        self._threads = [
            threading.Thread(target=self._run, args=(ask,), daemon=True) for ask in asks
        ]

    def __enter__(self) -> Self:
        """Start."""
        self._began = time.monotonic()
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """End; wait for the last answers unless there is an error, which must not wait.

        What is not answered even then has failed.
        """
        self._over.set()
        if kind is not None or self.wait(_LAST):
            return
        with self._lock:
            now, none = time.monotonic(), (table([]), chosen([]))
            self.records += [
                Record(numbers, due, due, now, 0, *none, f"no answer after {now - due:.0f} s")
                for numbers, due in self._open.values()
            ]
            self._open.clear()

    def wait(self, seconds: float) -> bool:
        """Wait for all clients to end; False when time is up before."""
        deadline = time.monotonic() + seconds
        for thread in self._threads:
            # in pieces: an interruption is heard between them
            while thread.is_alive() and time.monotonic() < deadline:
                thread.join(0.2)
        return not any(thread.is_alive() for thread in self._threads)

    def spend(self, seconds: float) -> None:
        """Wait until ``most`` requests are over or time is up, under a bar of them."""
        deadline, over = time.monotonic() + seconds, False
        with tqdm(total=self._most, desc="requests", unit=" requests") as bar:
            while not over and time.monotonic() < deadline:
                over = self.wait(0.5)
                bar.update(len(self.records) - bar.n)

    def _run(self, ask: Ask) -> None:
        while not self._over.is_set():
            with self._lock:
                slot = next(self._slots)
                if self._most and slot >= self._most:
                    return
                size = self._sizes[slot % len(self._sizes)]
                numbers = [next(self._numbers) for _ in range(size)]
            due = self._began + slot / self._rate if self._rate else time.monotonic()
            if (early := due - time.monotonic()) > 0 and self._over.wait(early):
                return
            these = range(numbers[0], numbers[0] + size)
            self._open[slot] = these, due
            record = one(ask, these, due)
            with self._lock:
                if self._open.pop(slot, None):  # else it was given up
                    self.records.append(record)


def one(ask: Ask, numbers: range, due: float) -> Record:
    """Send one request."""
    texts = [sentence(number) for number in numbers]
    began = time.monotonic()
    status, said, scores, best = _OK, "", table([]), chosen([])
    try:
        answers = ask(texts)
        scores = table(each.get("scores") or {} for each in answers)
        best = chosen(answers)
    except AnswerError as error:
        status, said = error.code, str(error)
    except ServerError as error:
        status, said = 0, str(error)
    return Record(numbers, due, began, time.monotonic(), status, scores, best, said)
