"""What a server does without any setting: it refuses strangers, and needs hardly anything."""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from http import HTTPStatus
from pathlib import Path

import numpy as np
import requests

from chaos.confined import CONFINEMENTS, NOBODY, ROOT
from chaos.damaged import DAMAGED, rewritten
from chaos.outcome import Outcome
from chaos.parts import NAME, sentence, table
from chaos.scene import FIRST, SECOND, Scene, workers
from chaos.tally import EXACT
from model_src.errors import ServerError
from serving import deploy, server
from serving.client import read_key
from serving.server import Server

_TEXTS = [sentence(number) for number in range(20)]
_SECONDS = 180.0
_REFUSED = {HTTPStatus.BAD_REQUEST, HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}


def defaults(scene: Scene) -> Outcome:
    """Try all that is forbidden on a server under traffic, then serve in confinement."""
    with (
        scene.server() as found,
        scene.traffic(found, clients=2, rate=20, attempts=1) as traffic,
    ):
        before = workers(found)
        wrong = [*_strangers(found), *_addresses(found), *_archives(scene, found)]
        alive = {*before} <= {*workers(found)}
    tally = scene.judge(traffic.records)
    names = [*CONFINEMENTS]
    told = [
        f"{', '.join(wanted)}: {said}"
        for wanted in ([names] if scene.short else [*([each] for each in names), names])
        if (said := _confined(scene, wanted))
    ]
    lost = [each for each in told if "not permitted" not in each]
    return Outcome(
        passed=not wrong and not lost and alive and tally.right == tally.asked > 0,
        numbers={
            "archives refused": 2 * len(DAMAGED) + 1,
            "let through": len(wrong),
            "requests around": tally.asked,
            "not right": tally.asked - tally.right,
            "workers lost": int(not alive),
            "confinements in which it does not serve": len(lost),
        },
        said="No token, a wrong one or that of the other port: refused (TorchServe says 400). "
        "Models of an address: refused, and the address is not asked. Archives that are cut, "
        "changed or leave their folder: refused by start and deploy, the old version goes on. It "
        "serves without network, with a read-only project and as another user than root."
        + "".join(f" {each}." for each in (*wrong, *told)),
    )


def _strangers(found: Server) -> Iterator[str]:
    """Ask both ports without their key; yield what was answered."""
    keys = {name: read_key(found.key_file, name) for name in ("inference", "management")}
    asked = {"inference": ("POST", f"predictions/{NAME}"), "management": ("GET", "models")}
    for port, (method, path) in asked.items():
        other = next(key for name, key in keys.items() if name != port)
        for headers in ({}, *({"Authorization": f"Bearer {key}"} for key in ("wrong", other))):
            url = f"http://127.0.0.1:{found.ports[port]}/{path}"
            answer = requests.request(method, url, headers=headers, data=b"a", timeout=20)
            if answer.status_code not in _REFUSED or "scores" in answer.text:
                yield f"{port} with {[*headers] or 'no token'}: {answer.status_code}"


def _addresses(found: Server) -> Iterator[str]:
    """Register archives of addresses with the management key; yield those that were taken."""
    header = {"Authorization": f"Bearer {read_key(found.key_file, 'management')}"}
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.2)
        here = f"127.0.0.1:{listener.getsockname()[1]}/{NAME}.mar"
        outside = found.run_dir.parent / f"{NAME}.mar"
        for url in (
            f"http://{here}",
            f"https://{here}",
            f"HTTP://{here}",
            f"ftp://{here}",
            f"s3://{here}",
            f"file://{outside}",
            f"../{NAME}.mar",
            f"..%2f{NAME}.mar",
        ):
            answer = requests.post(
                f"http://127.0.0.1:{found.ports['management']}/models",
                params={"url": url, "model_name": "stranger", "initial_workers": "0"},
                headers=header,
                timeout=20,
            )
            if answer.status_code < HTTPStatus.BAD_REQUEST:
                yield f"registered {url}"
        try:
            listener.accept()[0].close()
        except TimeoutError:
            return
        yield "the address of an archive was asked"


def _archives(scene: Scene, found: Server) -> Iterator[str]:
    """Start and deploy damaged archives; yield those that were not refused."""
    good = scene.archives[SECOND]
    folder = scene.folder / "damaged"
    folder.mkdir(exist_ok=True)
    for name, damage in DAMAGED.items():
        mar = folder / f"{name}.mar"
        damage(good, mar)
        yield from _served(mar, partial(server.start, folder, [str(mar)], scene.run_dir()))
        yield from _served(mar, partial(deploy.deploy, found.run_dir, mar))
    changed = rewritten(good, folder / "rewritten.mar")
    yield from _served(changed, partial(deploy.deploy, found.run_dir, changed), "wrong checksum")
    if [each.version for each in found.served] != [each[0] for each in _versions(found)]:
        yield "other versions are served than before"
    evil = [path for path in scene.folder.rglob("*evil*") if path.is_file()]
    yield from (f"{path.name} was written" for path in evil)


def _served(mar: Path, do: Callable[[], object], reason: str = "is damaged") -> Iterator[str]:
    try:
        do()
    except ServerError as error:
        if reason not in str(error):
            yield f"{mar.stem}: {error}"
    else:
        yield f"served: {mar.stem}"


def _versions(found: Server) -> list[tuple[str, int]]:
    return [(each["modelVersion"], len(each["workers"])) for each in found.admin.versions(NAME)]


def _confined(scene: Scene, wanted: list[str]) -> str:
    """Serve in another process that may do little; say what was wrong with it."""
    spaces = [flag for name in wanted for flag in CONFINEMENTS[name][0]]
    root = os.getuid() == 0
    enter = ["unshare", *([] if root else ["--map-root-user"]), *spaces] if spaces else []
    if enter and subprocess.run([*enter, "true"], capture_output=True, check=False).returncode:  # noqa: S603
        return "namespaces are not permitted here"
    with tempfile.TemporaryDirectory(prefix="iclassifier-") as name:
        folder = Path(name)
        mar = Path(shutil.copy(scene.archives[FIRST], folder))
        if root and "not root" in wanted:
            for path in (folder, mar):
                os.chown(path, NOBODY, NOBODY)
        run_dir = folder / "run"
        try:
            done = subprocess.run(  # noqa: S603
                [*enter, sys.executable, "-m", "chaos.confined", str(run_dir), str(mar), *wanted],
                input=json.dumps(_TEXTS),
                capture_output=True,
                text=True,
                cwd=ROOT,
                timeout=_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return f"no answer within {_SECONDS:.0f} s"
        finally:
            scene.end(run_dir)
    if done.returncode:
        return (done.stderr.strip() or "no reason").splitlines()[-1]
    said = json.loads(done.stdout)
    if open_ := [each for each in wanted if not said["barred"][each]]:
        return f"not confined by {', '.join(open_)}"
    answers = table(each["scores"] for each in said["answers"])
    same = np.abs(answers - scene.offline.scores(FIRST, _TEXTS)).max() <= EXACT
    return "" if same else "other scores than offline"
