"""The handler of every archive: N requests in, N answers out in order, no exception ever."""

import logging
import os
import sys
import time
import traceback
from http import HTTPStatus
from pathlib import Path
from typing import Any

import torch

from handlers.ledger import Ledger
from handlers.protocol import Answer, Failure, Request, encode, parse
from model_src.classifier import family_of
from model_src.errors import BundleError, RequestError
from model_src.predictor import Predictor

logger = logging.getLogger(__name__)

_BROKEN = Failure(HTTPStatus.INTERNAL_SERVER_ERROR, "the model failed on this text")
_LATE = Failure(
    HTTPStatus.SERVICE_UNAVAILABLE, "not answered in time: send fewer sentences at once"
)
# A request with this header learns the pid of its worker, which is how a server is drained.
WORKER = "x-worker"
# Sentences between two looks at the clock.
_CHUNK = 32


class BaseHandler:
    """Load an export directory once, then answer batches; ``context`` is TorchServe's.

    No sentence is ever logged: of an unexpected error only its type and its place are.
    """

    kind = ""

    def __init__(self) -> None:
        """Wait for ``initialize``."""
        self.predictor: Predictor
        self.ledger = Ledger(None)
        self.seconds = 40.0

    def initialize(self, context: Any) -> None:  # noqa: ANN401 - TorchServe's own class
        """Load the export directory ``model`` of the extracted archive and warm it up."""
        # The worker logs two lines a request at level INFO: a fifth of its time.
        logging.getLogger().setLevel(logging.WARNING)
        settings = (context.model_yaml_config or {}).get("handler", {})
        torch.set_num_threads(int(settings.get("num_threads", 1)))
        self.seconds = float(settings.get("seconds", 40))
        folder = Path(context.system_properties["model_dir"]) / "model"
        self.predictor = Predictor.load(folder)
        family = family_of(self.predictor.bundle.config)
        if family.handler != self.kind:
            raise BundleError(f"{type(self).__name__} does not serve {family.handler} models")
        # The first runs of a TorchScript graph compile it; a client must not wait for that.
        for batch in (["warm up"], ["warm up", "a longer sentence to warm up with"] * 2) * 2:
            self.predictor.predict(batch)
        self.ledger = Ledger(context, self.predictor.tokens)

    def handle(self, data: list[dict[str, object]], context: Any) -> list[bytes]:  # noqa: ANN401
        """Answer a batch; a bad request gets its own status, its mates their answers."""
        requests = [self._parse(fields, context, i) for i, fields in enumerate(data)]
        texts = [text for request in requests for text in request.texts]
        found = self._answer(texts)
        self.ledger.add(len(data), found)
        answers = iter(found)
        out = []
        for i, request in enumerate(requests):
            own = [next(answers) for _ in request.texts]
            if not request.many and isinstance(own[0], Failure):
                context.set_response_status(own[0].status.value, own[0].status.phrase, i)
            context.set_response_content_type(i, "application/json")
            if WORKER in context.get_all_request_header(i):
                context.set_response_header(i, WORKER, str(os.getpid()))
            out.append(encode(own, many=request.many))
        return out

    def _parse(self, fields: dict[str, object], context: Any, i: int) -> Request:  # noqa: ANN401
        try:
            return parse(fields, _content_type(context, i))
        except RequestError as error:
            return Request([error], many=False)
        except Exception:  # noqa: BLE001 - one bad request must not harm its mates
            self._log_error()
            return Request([RequestError("the request cannot be read")], many=False)

    def _answer(self, texts: list[str | RequestError]) -> list[Answer]:
        """Predict all good texts together; what the time does not suffice for gets a 503.

        TorchServe kills a worker that is silent for longer than responseTimeout, and all of its
        requests with it.
        """
        good = [text for text in texts if isinstance(text, str)]
        deadline = time.monotonic() + self.seconds
        predictions: list[Answer] = []
        for start in range(0, len(good), _CHUNK):
            chunk = good[start : start + _CHUNK]
            late = time.monotonic() > deadline
            predictions += [_LATE] * len(chunk) if late else self._predict(chunk)
        found = iter(predictions)
        return [
            next(found) if isinstance(text, str) else Failure(HTTPStatus.BAD_REQUEST, str(text))
            for text in texts
        ]

    def _predict(self, texts: list[str]) -> list[Answer]:
        """Predict texts at once, or each alone when that fails."""
        began = time.perf_counter()
        try:
            return list(self.predictor.predict(texts))
        except Exception:  # noqa: BLE001 - one bad text must not harm its mates
            self._log_error()
            return [self._alone(text) for text in texts]
        finally:
            self.ledger.ran(self.predictor.tokens, time.perf_counter() - began)

    def _alone(self, text: str) -> Answer:
        try:
            return self.predictor.predict([text])[0]
        except Exception:  # noqa: BLE001 - the client gets a 500 of its own
            return _BROKEN

    def _log_error(self) -> None:
        """Log the type and the place, without the message: it may quote what a client sent."""
        kind, _, trace = sys.exc_info()
        frames = " <- ".join(f"{f.name}:{f.lineno}" for f in reversed(traceback.extract_tb(trace)))
        logger.error("%s in %s", kind.__name__ if kind else "error", frames)


def _content_type(context: Any, i: int) -> str:  # noqa: ANN401
    """Return the request's content type; header names arrive in any case."""
    headers = context.get_all_request_header(i)
    for name, value in headers.items():
        if name.lower() == "content-type" and isinstance(value, str):
            return value
    return ""
