"""Paste the real output of the commands that README.md names into it.

Usage: .venv/bin/python -m scripts.paste_readme [WORD]   (only the commands with WORD)
"""

import re
import subprocess
import sys

from model_src.files import atomic_write
from scripts.options import ROOT

_BLOCK = re.compile(r"(<!-- output of: (?P<command>.*?) -->\n```text\n).*?(```\n)", re.DOTALL)


def main(word: str) -> None:
    """Run each command in the project's folder and put its standard output in its block."""
    readme = ROOT / "README.md"

    def fill(block: re.Match[str]) -> str:
        command = block["command"].split()
        if word not in command:
            return block[0]
        done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)  # noqa: S603
        if done.returncode:
            sys.exit(f"{' '.join(command)} failed:\n{done.stdout}")
        lines = [line.rstrip() for line in done.stdout.splitlines()]
        return block[1] + "\n".join(lines) + "\n" + block[3]

    atomic_write(readme, _BLOCK.sub(fill, readme.read_text(encoding="utf-8")))


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "./iclassifier")
