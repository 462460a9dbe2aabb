"""The handler of every archive: N requests in, N answers out in order, no exception ever."""

import functools
import logging
import math
import sys
import time
import traceback
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any

import torch

from handlers import wire
from handlers.body import MAX_BODY
from handlers.headers import answer_headers, headers_of
from handlers.ledger import Ledger
from handlers.openinference import Model
from handlers.protocol import MAX_INSTANCES, Answer, Failure, Request, encode, parse, reply
from handlers.wire import Call, Reply
from model_src.bundle import EXPORT, check
from model_src.classifier import family_of
from model_src.errors import BundleError, RequestError
from model_src.explain import Explainer
from model_src.files import read_json
from model_src.predictor import Predictor

logger = logging.getLogger(__name__)

_OK = HTTPStatus.OK
_UNREADABLE = Failure(HTTPStatus.BAD_REQUEST, "the request cannot be read")
_BROKEN = Failure(HTTPStatus.INTERNAL_SERVER_ERROR, "the model failed on this text")
_LATE = Failure(
    HTTPStatus.SERVICE_UNAVAILABLE, "not answered in time: send fewer sentences at once"
)
# What is computed between two looks at the clock: sentences, and tokens as ``chunks`` counts them.
# A large transformer must read even twice as many in a few seconds.
_CHUNK, _CHUNK_TOKENS = 32, 512


class BaseHandler:
    """Load an export directory once, then answer batches; ``context`` is TorchServe's.

    No sentence is ever logged: of an unexpected error only its type and its place are.
    """

    kind = ""

    def __init__(self) -> None:
        """Wait for ``initialize``."""
        self.predictor: Predictor
        # of the fp32 model, in archives that can explain
        self.source = Path()
        self.ledger = Ledger(None)
        self.seconds = 40.0
        self.longest = 512
        self.model = Model("", "", [])
        self.about: dict[str, object] = {}

    def initialize(self, context: Any) -> None:  # noqa: ANN401 - TorchServe's own class
        """Load the export directory ``model`` of the extracted archive and warm it up."""
        # TorchServe's own way (see wire) logs two lines a request: a fifth of a worker's time.
        logging.getLogger().setLevel(logging.WARNING)
        settings = (context.model_yaml_config or {}).get("handler", {})
        torch.set_num_threads(int(settings.get("num_threads", 1)))
        self.seconds = float(settings.get("seconds", 40))
        root = Path(context.system_properties["model_dir"])
        self.predictor = Predictor.load(root / "model")
        self.source = root / "explain"
        if self.source.is_dir():
            check(self.source)
        family = family_of(self.predictor.bundle.config)
        if family.handler != self.kind:
            raise BundleError(f"{type(self).__name__} does not serve {family.handler} models")
        self.longest = self.predictor.bundle.config.n_ctx
        version = ((context.manifest or {}).get("model") or {}).get("modelVersion", "")
        self.model = Model(context.model_name or "", version, self.predictor.bundle.labels)
        self.about = self._describe()
        # The first runs of a TorchScript graph compile it; a client must not wait for that.
        for batch in (["warm up"], ["warm up", "a longer sentence to warm up with"] * 2) * 2:
            self.predictor.predict(batch)
        self.ledger = Ledger(context, self.predictor.tokens)
        if settings.get("buffered_socket", True):
            wire.install(self.answer)

    def handle(self, data: list[dict[str, object]], context: Any) -> list[bytes]:  # noqa: ANN401
        """Answer a batch through TorchServe's own objects.

        ``wire`` passes it by: what is added to a handler belongs around ``answer``.
        """
        calls = [Call(b"", headers_of(context, i), fields) for i, fields in enumerate(data)]
        replies = self.answer(calls)
        for i, (status, headers, _) in enumerate(replies):
            if status != _OK:
                context.set_response_status(status.value, status.phrase, i)
            for name, value in headers:
                context.set_response_header(i, name, value)
        return [reply.body for reply in replies]

    def answer(self, calls: list[Call]) -> list[Reply]:
        """Answer a batch; a bad request gets its own status, its mates their answers."""
        try:
            return self._replies(calls)
        except Exception:  # noqa: BLE001 - not even a bug may cost the others on their way a worker
            self._log_error()
            failed: list[Answer] = [_BROKEN] * len(calls)
            self.ledger.add(len(calls), failed)
            body = encode(_BROKEN.as_dict())
            return [Reply(_BROKEN.status, answer_headers(call.headers), body) for call in calls]

    def _replies(self, calls: list[Call]) -> list[Reply]:
        requests = [self._parse(call.fields, call.headers) for call in calls]
        deadline = time.monotonic() + self.seconds
        texts = [text for request in requests if not request.explain for text in request.texts]
        answers = iter(self._answer(texts, deadline))
        every: list[Answer] = []
        out = []
        for call, request in zip(calls, requests, strict=True):
            if request.explain:
                own = [self._explain(text, request.target, deadline) for text in request.texts]
            else:
                own = [next(answers) for _ in request.texts]
            status, value = reply(request, own, self.model) if own else (_OK, self.about)
            every += own
            out.append(Reply(status, answer_headers(call.headers), encode(value)))
        self.ledger.add(len(calls), every)
        return out

    def _describe(self) -> dict[str, object]:
        """Return what a client may want to know of the model, its limits and its quality."""
        bundle = self.predictor.bundle
        record = read_json(bundle.folder / EXPORT, BundleError)
        return {
            "name": self.model.name,
            "version": self.model.version,
            "labels": bundle.labels,
            "multi_label": bool(bundle.config.multi_label),
            "limits": {
                "tokens": bundle.config.n_ctx,
                "instances": MAX_INSTANCES,
                "body_bytes": MAX_BODY,
                "seconds": self.seconds,
            },
            "model": f"{bundle.config.emb_class} {bundle.config.enc_class}",
            "format": record["format"],
            "source": record["source"],
            "measured": record.get("measured"),
            "explanations": self.source.is_dir(),
        }

    def _parse(self, fields: dict[str, object], headers: Mapping[str, str]) -> Request:
        try:
            if headers.get("describe") == "True":  # TorchServe's own header
                return Request([])
            return parse(fields, headers)
        except RequestError as error:
            return Request([Failure.of(error)])
        except Exception:  # noqa: BLE001 - one bad request must not harm its mates
            self._log_error()
            return Request([_UNREADABLE])

    def _answer(self, texts: list[str | Failure], deadline: float) -> list[Answer]:
        """Predict all good texts, short ones first; what the time does not suffice for gets a 503.

        TorchServe kills a worker that is silent for longer than responseTimeout, and all of its
        requests with it.
        """
        good = {i: text for i, text in enumerate(texts) if isinstance(text, str)}
        order = sorted(good, key=lambda i: len(good[i]))  # so that those of like length meet
        predictions: list[Answer] = []
        for chunk in chunks([good[i] for i in order], self.longest):
            late = time.monotonic() > deadline
            predictions += [_LATE] * len(chunk) if late else self._predict(chunk, deadline)
        found = dict(zip(order, predictions, strict=True))
        return [found[i] if isinstance(text, str) else text for i, text in enumerate(texts)]

    def _predict(self, texts: list[str], deadline: float) -> list[Answer]:
        """Predict texts at once, or each alone when that fails."""
        began = time.perf_counter()
        try:
            return list(self.predictor.predict(texts))
        except Exception:  # noqa: BLE001 - one bad text must not harm its mates
            self._log_error()
            return [self._alone(text, deadline) for text in texts]
        finally:
            self.ledger.ran(self.predictor.tokens, time.perf_counter() - began)

    def _alone(self, text: str, deadline: float) -> Answer:
        if time.monotonic() > deadline:
            return _LATE
        try:
            return self.predictor.predict([text])[0]
        except Exception:  # noqa: BLE001 - the client gets a 500 of its own
            return _BROKEN

    def _explain(self, text: str | Failure, target: str | None, deadline: float) -> Answer:
        if not isinstance(text, str):
            return text
        # Many that are late must not take a forward pass each before they say so.
        if time.monotonic() > deadline:
            return _LATE
        began = time.perf_counter()
        try:
            found = self._explainer.explain(text, target, deadline=deadline)
            # JSON has no NaN, and null would pass for a number
            return found if math.isfinite(found.gap) else _BROKEN
        except RequestError as error:
            return Failure.of(error)
        except TimeoutError:
            return _LATE
        except Exception:  # noqa: BLE001 - one bad text must not harm its mates
            self._log_error()
            return _BROKEN
        finally:
            self.ledger.explained(time.perf_counter() - began)

    @functools.cached_property
    def _explainer(self) -> Explainer:
        """The fp32 model, which takes memory from the first question on."""
        if not self.source.is_dir():
            raise RequestError(
                "this archive holds no fp32 model to explain with: make it with "
                "archive --explain MODEL_DIR"
            )
        return Explainer.load(self.source)

    def _log_error(self) -> None:
        """Log the type and the place, without the message: it may quote what a client sent."""
        kind, _, trace = sys.exc_info()
        frames = " <- ".join(f"{f.name}:{f.lineno}" for f in reversed(traceback.extract_tb(trace)))
        logger.error("%s in %s", kind.__name__ if kind else "error", frames)


def chunks(texts: list[str], limit: int) -> Iterator[list[str]]:
    """Split ``texts`` in their order into what is computed at once.

    No tokenizer has run yet: a text counts as many tokens as it has bytes, less half its
    characters, up to ``limit``: about twice what English has, and half of the most there can be
    (every full stop a token, or every byte).
    """
    chunk: list[str] = []
    tokens = 0
    for text in texts:
        own = min(len(text.encode()) - len(text) // 2, limit)
        if chunk and (len(chunk) == _CHUNK or tokens + own > _CHUNK_TOKENS):
            yield chunk
            chunk, tokens = [], 0
        chunk.append(text)
        tokens += own
    if chunk:
        yield chunk
