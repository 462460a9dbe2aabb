"""Answer sentences through a packed handler, as a TorchServe worker would; run in a clean process.

Usage: python -P selfcheck.py EXTRACTED_ARCHIVE < JSON list of texts > JSON answers, explanation
"""

import importlib
import json
import sys
from pathlib import Path

import yaml
from ts.context import Context, RequestProcessor
from ts.utils.util import list_classes_from_module

_JSON = {"Content-Type": "application/json"}


def main(tree: Path) -> None:
    """Load the handler that the manifest names and send it all texts as one batch."""
    model = json.loads((tree / "MAR-INF" / "MANIFEST.json").read_text(encoding="utf-8"))["model"]
    settings = yaml.safe_load((tree / model["configFile"]).read_text(encoding="utf-8"))
    texts = json.load(sys.stdin)
    context = Context(
        model["modelName"], str(tree), None, len(texts), None, "", model_yaml_config=settings
    )
    context.request_processor = [RequestProcessor(_JSON)] * len(texts)
    (handler_class,) = list_classes_from_module(
        importlib.import_module(Path(model["handler"]).stem)
    )
    handler = handler_class()
    handler.initialize(context)
    answers = handler.handle(
        [{"body": json.dumps({"text": text}).encode()} for text in texts], context
    )
    context.request_processor = [RequestProcessor(_JSON | {"explain": "True"})]
    (explanation,) = handler.handle([{"body": json.dumps({"text": texts[0]}).encode()}], context)
    found = {
        "answers": [json.loads(answer) for answer in answers],
        "explanation": json.loads(explanation),
    }
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
