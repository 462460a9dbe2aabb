"""Paste into README.md the real output of the commands, and the tables, that it names.

Usage: .venv/bin/python -m scripts.paste_readme [WORD]   (tables, and only commands with WORD)
"""

import re
import subprocess
import sys

from model_src.files import atomic_write
from scripts.options import ROOT

_OUTPUT = re.compile(r"(<!-- output of: (?P<command>.*?) -->\n```text\n).*?(```\n)", re.DOTALL)
# The whole file, or what stands in it before the line that is named and its last line, which says
# how it was made.
_COPY = re.compile(
    r"(<!-- copy of: (?P<file>\S+)(?: before: (?P<line>[^\n]*?))? -->\n).*?(<!-- end of copy -->)",
    re.DOTALL,
)


def tables(text: str) -> str:
    """Return ``text`` with the tables that it names as they are in results/ now."""

    def fill(block: re.Match[str]) -> str:
        table = (ROOT / block["file"]).read_text(encoding="utf-8")
        if line := block["line"]:
            lines = table.splitlines()
            if line not in lines:
                sys.exit(f"{block['file']} has no line {line!r}")
            table = "\n".join([*lines[: lines.index(line)], lines[-1], ""])
        return f"{block[1]}{table}{block[4]}"

    return _COPY.sub(fill, text)


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

    atomic_write(readme, _OUTPUT.sub(fill, tables(readme.read_text(encoding="utf-8"))))


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "./iclassifier")
