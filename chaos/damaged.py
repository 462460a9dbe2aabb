"""Archives that must not be served: cut, changed, or with files that would leave their folder."""

import shutil
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path

WEIGHTS = "model/model.pt"


def _cut(share: float) -> Callable[[Path, Path], None]:
    def make(mar: Path, target: Path) -> None:
        content = mar.read_bytes()
        target.write_bytes(content[: int(len(content) * share)])

    return make


def _flipped(mar: Path, target: Path) -> None:
    """Change one bit of the weights, which the zip's own CRC knows."""
    with zipfile.ZipFile(mar) as packed:
        entry = packed.getinfo(WEIGHTS)
    content = bytearray(mar.read_bytes())
    content[entry.header_offset + entry.file_size // 2] ^= 1
    target.write_bytes(content)


def _no_zip(mar: Path, target: Path) -> None:
    target.write_bytes(b"not a zip" * 100)


def _with(name: str, *, link: bool = False) -> Callable[[Path, Path], None]:
    def make(mar: Path, target: Path) -> None:
        shutil.copyfile(mar, target)
        entry = zipfile.ZipInfo(name)
        if link:
            entry.external_attr = (stat.S_IFLNK | 0o777) << 16
        with zipfile.ZipFile(target, "a") as packed:
            packed.writestr(entry, "/etc/passwd")

    return make


# Each writes a damaged copy of an archive.
DAMAGED: dict[str, Callable[[Path, Path], None]] = {
    "empty": _cut(0),
    "cut early": _cut(0.1),
    "cut in the middle": _cut(0.5),
    "cut late": _cut(0.999),
    "one bit": _flipped,
    "no zip": _no_zip,
    "up": _with("../evil.py"),
    "up from within": _with("model/../../../evil.py"),
    "absolute": _with("/tmp/iclassifier-evil.py"),  # noqa: S108 - must not be made
    "backslash": _with("..\\evil.py"),
    "link": _with("model/link", link=True),
}


def rewritten(mar: Path, target: Path) -> Path:
    """Change the weights in a zip that is whole: only the bundle's checksum tells."""
    with zipfile.ZipFile(mar) as packed, zipfile.ZipFile(target, "w") as out:
        for name in packed.namelist():
            content = bytearray(packed.read(name))
            if name == WEIGHTS:
                content[len(content) // 2] ^= 1
            out.writestr(name, bytes(content))
    return target
