"""Answer texts through the handlers of many extracted archives, all in one clean process.

Usage: python -P packed.py EXTRACTED_ARCHIVE ... < JSON list of texts > JSON object by folder
"""

import json
import sys
from pathlib import Path

import model_src
from serving.selfcheck import answers

if __name__ == "__main__":
    assert model_src.__file__.startswith(sys.argv[1]), "not the code of an archive"
    texts = json.load(sys.stdin)
    json.dump({name: answers(Path(name), texts) for name in sys.argv[1:]}, sys.stdout)
