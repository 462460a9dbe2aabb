"""What a server does without any setting: it refuses strangers, and needs hardly anything."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

from chaos import strangers
from chaos.confined import CONFINEMENTS, NOBODY, NOT_LET, ROOT
from chaos.damaged import DAMAGED, rewritten
from chaos.outcome import Outcome
from chaos.parts import NAME, chosen, same, sentence, table
from chaos.scene import FIRST, SECOND, Scene, workers
from model_src.errors import ServerError
from serving import deploy, server
from serving.server import Server

_TEXTS = [sentence(number) for number in range(20)]
_SECONDS = 180.0


def defaults(scene: Scene) -> Outcome:
    """Try all that is forbidden on a server under traffic, then serve in confinement."""
    with (
        scene.server() as found,
        scene.traffic(found, clients=2, rate=20, attempts=1) as traffic,
    ):
        before = workers(found)
        wrong = [
            *strangers.over_rest(found),
            *strangers.over_grpc(found, NAME),
            *strangers.addresses(found, scene.archives[SECOND]),
            *_archives(scene, found),
        ]
        alive = {*before} <= {*workers(found)}
    tally = scene.judge(traffic.records)
    names = [*CONFINEMENTS]
    tries = {
        ", ".join(wanted): _confined(scene, wanted)
        for wanted in ([names] if scene.short else [*([each] for each in names), names])
    }
    untried = [f"{name}: not tried, for this machine forbids it" for name in _untried(tries)]
    lost = [f"{name}: {said}" for name, said in tries.items() if said]
    right = tally.right == tally.asked > 0
    return Outcome(
        passed=not wrong and not lost and alive and right and (scene.short or not untried),
        numbers={
            "archives refused": 2 * len(DAMAGED) + 1,
            "let through": len(wrong),
            "requests around": tally.asked,
            "not right": tally.asked - tally.right,
            "workers lost": int(not alive),
            "confinements": len(tries),
            "confinements not tried": len(untried),
            "confinements in which it does not serve": len(lost),
        },
        said="No token, a wrong one or that of the other port: refused over REST, where TorchServe "
        "says 400, and over gRPC. "
        "Models of an address: refused, and the address is not asked. Archives that are cut, "
        "changed or leave their folder: refused by start and deploy, the old version goes on. It "
        "serves without network, with a read-only project and as another user than root."
        + "".join(f" {each}." for each in (*wrong, *lost, *untried)),
    )


def _untried(tries: Mapping[str, str | None]) -> list[str]:
    return [name for name, said in tries.items() if said is None]


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


def _confined(scene: Scene, wanted: list[str]) -> str | None:
    """Serve in another process that may do little; say what was wrong, None if it was not tried."""
    spaces = [flag for name in wanted for flag in CONFINEMENTS[name][0]]
    root = os.getuid() == 0
    enter = ["unshare", *([] if root else ["--map-root-user"]), *spaces] if spaces else []
    if enter and subprocess.run([*enter, "true"], capture_output=True, check=False).returncode:  # noqa: S603
        return None
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
    if done.returncode == NOT_LET:
        return None
    if done.returncode:
        return (done.stderr.strip() or "no reason").splitlines()[-1]
    said = json.loads(done.stdout)
    if open_ := [each for each in wanted if not said["barred"][each]]:
        return f"not confined by {', '.join(open_)}"
    answers, known = said["answers"], scene.offline.scores(FIRST, _TEXTS)
    right = same(table(each["scores"] for each in answers), chosen(answers), known)
    return "" if right else "other answers than offline"
