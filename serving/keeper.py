"""Renew the tokens of a server before they expire; a process of its own that ends with the server.

Usage: python -m serving.keeper RUN_DIR
"""

import sys
import time
from datetime import datetime
from pathlib import Path

from model_src.errors import ServerError
from model_src.files import read_json
from serving.server import Server

_POLL = 1.0
# Renewed after this share of their life: what remains is for clients that hold an old header.
_SHARE = 0.75


def main(run_dir: Path) -> None:
    """Look once a second until the server is gone."""
    first = Server.find(run_dir)
    while first and (found := Server.find(run_dir)) and found.birth == first.birth:
        try:
            if found.key_file.exists() and due(found.key_file, time.time()):
                found.rotate()
        except (ServerError, OSError, ValueError) as reason:  # tried again in a second
            sys.stderr.write(f"{datetime.now().astimezone().isoformat()} {reason}\n")
            sys.stderr.flush()
        time.sleep(_POLL)


def due(key_file: Path, now: float) -> bool:
    """Tell whether a token of ``key_file``, written when the file was, has had most of its life."""
    keys, made = read_json(key_file, ServerError), key_file.stat().st_mtime
    ends = [
        seconds_since_1970(entry["expiration time"])
        for entry in keys.values()
        if "expiration time" in entry
    ]
    return now > made + _SHARE * (min(ends) - made)


def seconds_since_1970(moment: str) -> float:
    """Return what Java writes as ``2030-01-01T00:00:00.123456789Z`` as a number."""
    return datetime.fromisoformat(moment).timestamp()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
