"""Answer sentences through a packed handler, as a TorchServe worker would; run in a clean process.

Usage: python -P selfcheck.py EXTRACTED_ARCHIVE < JSON list of texts > JSON answers, explanation
"""

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import yaml
from ts.context import Context, RequestProcessor
from ts.utils.util import list_classes_from_module

_JSON = {"Content-Type": "application/json"}


def answers(tree: Path, texts: list[str]) -> list[dict[str, Any]]:
    """Load the handler that the manifest names and send it all texts as one batch."""
    return _ask(*_load(tree), texts, _JSON)


def _load(tree: Path) -> tuple[Any, Context]:
    model = json.loads((tree / "MAR-INF" / "MANIFEST.json").read_text(encoding="utf-8"))["model"]
    settings = yaml.safe_load((tree / model["configFile"]).read_text(encoding="utf-8"))
    context = Context(model["modelName"], str(tree), None, 1, None, "", model_yaml_config=settings)
    (handler_class,) = list_classes_from_module(
        importlib.import_module(Path(model["handler"]).stem)
    )
    handler = handler_class()
    handler.initialize(context)
    return handler, context


def _ask(
    handler: Any,  # noqa: ANN401 - of the archive's own class
    context: Context,
    texts: list[str],
    headers: dict[str, str],
) -> list[dict[str, Any]]:
    context.request_processor = [RequestProcessor(headers)] * len(texts)
    bodies = [{"body": json.dumps({"text": text}).encode()} for text in texts]
    return [json.loads(answer) for answer in handler.handle(bodies, context)]


def main(tree: Path, texts: list[str]) -> None:
    """Print the answers and an explanation of the first text."""
    loaded = _load(tree)
    (explanation,) = _ask(*loaded, texts[:1], _JSON | {"explain": "True"})
    found = {"answers": _ask(*loaded, texts, _JSON), "explanation": explanation}
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.load(sys.stdin))
