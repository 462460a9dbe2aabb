"""Answer sentences through a packed handler, as a TorchServe worker would; run in a clean process.

Usage: python -P selfcheck.py EXTRACTED_ARCHIVE < JSON list of texts > JSON list of answers
"""

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import yaml
from ts.context import Context, RequestProcessor
from ts.utils.util import list_classes_from_module


def answers(tree: Path, texts: list[str]) -> list[dict[str, Any]]:
    """Load the handler that the manifest names and send it all texts as one batch."""
    model = json.loads((tree / "MAR-INF" / "MANIFEST.json").read_text(encoding="utf-8"))["model"]
    settings = yaml.safe_load((tree / model["configFile"]).read_text(encoding="utf-8"))
    context = Context(
        model["modelName"], str(tree), None, len(texts), None, "", model_yaml_config=settings
    )
    context.request_processor = [RequestProcessor({"Content-Type": "application/json"})] * len(
        texts
    )
    (handler_class,) = list_classes_from_module(
        importlib.import_module(Path(model["handler"]).stem)
    )
    handler = handler_class()
    handler.initialize(context)
    found = handler.handle(
        [{"body": json.dumps({"text": text}).encode()} for text in texts], context
    )
    return [json.loads(answer) for answer in found]


if __name__ == "__main__":
    json.dump(answers(Path(sys.argv[1]), json.load(sys.stdin)), sys.stdout)
