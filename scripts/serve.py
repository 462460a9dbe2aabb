"""Start, change, stop or look at a TorchServe with archives."""

import argparse
from pathlib import Path

from model_src.errors import ConfigError, ServerError, nearest
from scripts.options import ROOT, Parser, count, front, port, say, seconds, shown
from serving import deploy, frontend, server, store, tune
from serving.server import Options, Server
from serving.trials import AIMS

EXAMPLE = "./iclassifier serve start movie_reviews-glove-cnn-torchscript"
RUN_DIR = ROOT / ".serve" / "default"
_PORTS = {"inference": 8080, "management": 8081, "metrics": 8082, "grpc_inference": 7070}


def add_options(parser: Parser) -> None:
    """Declare the options."""
    parser.add_argument("action", choices=tuple(_ACTIONS), help="what to do")
    parser.add_argument(
        "models",
        nargs="*",
        help="start: archives (default: what a killed server had, else all in the store); "
        "deploy, tune: one archive; default, remove: a name and a version",
    )
    parser.add_argument(
        "--model_store", type=Path, default=ROOT / "model_store", help="the folder of archives"
    )
    parser.add_argument(
        "--run_dir", type=Path, default=RUN_DIR, help="state, keys, archives in use, logs"
    )
    parser.add_argument(
        "--seconds",
        type=seconds,
        default=120,
        help="time to get READY, to drain, or to tune (default 120)",
    )
    parser.add_argument(
        "--workers", type=count, default=0, help="workers a model (else its own); tune: at most"
    )
    parser.add_argument("--threads", type=count, default=0, help="threads a worker (else its own)")
    parser.add_argument("--version", default="", help="deploy: name of the version")
    parser.add_argument(
        "--keep", action="store_true", help="deploy: do not remove the version before"
    )
    aims = "; ".join(f"{name}: {aim.rule}" for name, aim in AIMS.items()).replace("%", "%%")
    parser.add_argument("--for", dest="aim", help=f"what tune chooses for (latency). {aims}")
    parser.add_argument(
        "--server_wide",
        action="store_true",
        help="tune: change config.properties too, where that gains something",
    )
    for name, default in _PORTS.items():
        parser.add_argument(
            f"--{name}_port",
            type=port,
            help=f"default {default}, without names what a killed server had; 0: a free one",
        )


def run(args: argparse.Namespace) -> int:
    """Do one of the actions; the exit code of ``status`` is 0 when all workers are READY."""
    wanted = _NAMES.get(args.action)
    if wanted is not None and len(args.models) != wanted:
        takes = {0: "no model names", 1: "one archive", 2: "a name and a version"}[wanted]
        raise ServerError(f"serve {args.action} takes {takes}")
    return _ACTIONS[args.action](args) or 0


def how_to_call(found: Server) -> str:
    """Return the curl line to try."""
    return (
        f"Next: curl -H @{shown(found.header_file)} -H 'Content-Type: text/plain' "
        f"-d 'a sentence to label' {found.url(found.models[0])}"
    )


def _start(args: argparse.Namespace) -> None:
    typed = {name: getattr(args, f"{name}_port") for name in _PORTS}
    given = {name: number for name, number in typed.items() if number is not None}
    killed, live = Server.read(args.run_dir), Server.find(args.run_dir)
    if live and not live.kept and not args.models:
        deploy.keep(args.run_dir)
        say(f"The tokens of {shown(args.run_dir)} are renewed again; all else ran on.")
        return
    options = Options(args.workers, args.threads)
    if not args.models and killed and not live:
        say(f"Going on with what the killed server of {shown(args.run_dir)} had.")
        started = server.restart(args.run_dir, given, args.seconds, options)
    else:
        models = args.models or sorted(path.stem for path in args.model_store.glob("*.mar"))
        ports = _PORTS | given
        started = server.start(args.model_store, models, args.run_dir, ports, args.seconds, options)
    for model in started.models:
        say(f"{model}: READY at {started.url(model)} and {started.grpc_url(model)}")
    for each in started.served:
        if remark := frontend.remark(each):
            say(remark)
    say(how_to_call(started))


def _deploy(args: argparse.Namespace) -> None:
    done = deploy.deploy(
        args.run_dir,
        store.find(args.model_store, args.models[0]),
        version=args.version,
        workers=args.workers,
        threads=args.threads,
        keep=args.keep,
        seconds=args.seconds,
    )
    say(f"{done.new.name} {done.new.version} answers as its archive does and is the default now")
    if done.old and args.keep:
        say(f"{done.old.name} {done.old.version} stays: {front()} serve default or remove")
    elif done.old:
        say(_removed(done.old.version, args.seconds, drained=done.drained))
    say(how_to_call(done.server))


def _removed(version: str, seconds: float, *, drained: bool) -> str:
    if drained:
        return f"{version} has answered all that it was sent, and is removed"
    return f"{version} is removed, though it was not known to be idle within {seconds:.0f} s"


def _default(args: argparse.Namespace) -> None:
    name, version = args.models
    found = deploy.set_default(args.run_dir, name, version)
    say(f"{name} {version} is the default now. {how_to_call(found)}")


def _remove(args: argparse.Namespace) -> None:
    name, version = args.models
    _, drained = deploy.remove(args.run_dir, name, version, args.seconds)
    say(_removed(version, args.seconds, drained=drained) + f". Next: {front()} serve status")


def _rotate(args: argparse.Namespace) -> None:
    found = deploy.rotate(args.run_dir)
    say(f"the tokens in {shown(found.key_file)} are new. {how_to_call(found)}")


def _status(args: argparse.Namespace) -> int:
    """Say of every version what TorchServe says, not what was asked of it."""
    found = deploy.running(args.run_dir)
    good = True
    for model in found.models:
        records, default = found.admin.versions(model), found.admin.default(model)
        good &= len(records) == sum(each.name == model for each in found.served)
        for each in records:
            ready = sum(worker["status"] == "READY" for worker in each["workers"])
            good &= ready >= each["minWorkers"]
            place = " (default)" if each["modelVersion"] == default else ""
            queue = each["jobQueueStatus"]["pendingRequests"]
            say(
                f"{model} {each['modelVersion']}{place}: {ready} of {each['minWorkers']} workers "
                f"READY, {queue} queued, {found.url(model)}"
            )
    if not found.kept:
        good = False
        say(f"the process that renews tokens has ended; {front()} serve start starts it again")
    say(how_to_call(found))
    return 0 if good else 1


def _stop(args: argparse.Namespace) -> None:
    if Server.find(args.run_dir) is None:
        say(f"no server of {shown(args.run_dir)} runs")
        return
    drained = deploy.stop(args.run_dir, args.seconds)
    hasty = f", though it was not known to be idle within {args.seconds:.0f} s"
    said = f"stopped the server of {shown(args.run_dir)}{'' if drained else hasty}"
    say(f"{said}. Next: {front()} serve start")


def _tune(args: argparse.Namespace) -> None:
    """Measure; only then write the evidence beside the archive and what is best into it."""
    name = args.aim or "latency"
    if name not in AIMS:
        raise ConfigError(f"unknown aim --for {name}{nearest(name, AIMS)}")
    mar, aim = store.find(args.model_store, args.models[0]), AIMS[name]
    live = Server.find(args.run_dir)
    if live:
        say(f"The server of {shown(args.run_dir)} runs too: the less it does, the truer the times.")
    found = tune.tune(mar, aim, workers=args.workers, seconds=args.seconds)
    from benchmarks import tuned  # it names the version of torch, which takes seconds to import

    command = f"{front()} serve tune {shown(mar)} --for {name} --seconds {args.seconds:g}"
    command += f" --workers {args.workers}" if args.workers else ""
    evidence = tuned.write(found, aim, command)
    found.save()
    for line in (*tuned.table(found), *tuned.conclusion(found, aim)):
        say(line)
    _tell_server_wide(found.properties, write=args.server_wide)
    again = f"deploy {mar.stem} --workers {found.setting.workers} --threads {found.setting.threads}"
    served = live and found.archive.name in live.models
    say(
        f"{shown(mar)} says so now, {shown(evidence)} has what was measured. "
        f"Next: {front()} serve {again if served else f'start {mar.stem}'}"
    )


def _tell_server_wide(properties: dict[str, str], *, write: bool) -> None:
    """Change what holds for every server only when told to, and say so."""
    said = " ".join(f"{name}={value}" for name, value in properties.items())
    if said and write:
        tune.write_properties(properties)
        say(f"config.properties, which holds for every server, has {said} now")
    elif said:
        say(f"{said} in config.properties would be faster; --server_wide writes that too")


_ACTIONS = {
    "start": _start,
    "deploy": _deploy,
    "tune": _tune,
    "default": _default,
    "remove": _remove,
    "rotate": _rotate,
    "status": _status,
    "stop": _stop,
}
# How many names an action takes; start takes any number.
_NAMES = {"deploy": 1, "tune": 1, "default": 2, "remove": 2, "rotate": 0, "status": 0, "stop": 0}
