"""What all verbs share: the option parser, the options of a config, and the default places."""

import argparse
import dataclasses
import itertools
import os
import shlex
import sys
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from model_src.bundle import manifest_of
from model_src.config import Config
from model_src.errors import BundleError, ConfigError, nearest

ROOT = Path(__file__).resolve().parent.parent


class Parser(argparse.ArgumentParser):
    """An argument parser that names the nearest option when it does not know one."""

    def __init__(self, verb: str, summary: str, example: str) -> None:
        """Show ``example`` below the options."""
        self.known: list[str] = []
        self._late: dict[argparse.Action, Callable[[], str]] = {}
        super().__init__(
            prog=f"./iclassifier {verb}",
            description=summary[0].upper() + summary[1:] + ".",
            epilog=f"example:\n  {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def add_argument(
        self,
        *names: Any,  # noqa: ANN401 - argparse's own
        late_help: Callable[[], str] | None = None,
        **settings: Any,  # noqa: ANN401
    ) -> argparse.Action:
        """Remember its names for ``parse``; ``late_help`` is called for ``--help`` alone."""
        self.known += [name for name in names if name.startswith("--")]
        action = super().add_argument(*names, **settings)
        if late_help:
            self._late[action] = late_help
        return action

    def format_help(self) -> str:
        """Return the help, with what takes seconds to import."""
        for action, late_help in self._late.items():
            action.help = late_help()
        return super().format_help()

    def add_config(self) -> None:
        """Add one option for each key of a config; they override the file."""
        hints = typing.get_type_hints(Config)
        self.usage = f"{self.prog} [options]"  # all of them would fill a screen
        group = self.add_argument_group("config keys (they override the file)")
        for key in dataclasses.fields(Config):
            self.known.append(f"--{key.name}")
            flag = hints[key.name] in (bool, bool | None)
            settings: dict[str, Any] = {"nargs": "?", "const": "true"} if flag else {}
            group.add_argument(
                f"--{key.name}",
                metavar="true|false" if flag else "X",
                default=argparse.SUPPRESS,
                help=key.metadata["help"] + _default(key),
                **settings,
            )

    def parse(self, argv: list[str]) -> argparse.Namespace:
        """Parse ``argv``; raises ConfigError for an option that is not known."""
        # Before argparse looks for what is missing: a mistyped option explains that too.
        for word in itertools.takewhile(lambda word: word != "--", argv):
            name = word.partition("=")[0]
            if name.startswith("--") and name not in [*self.known, "--help"]:
                raise ConfigError(
                    f"unknown option {name} of {self.prog}{nearest(name, self.known)}"
                )
        # Arguments may stand before and after options; where "--" marks some, all stand together.
        parse = self.parse_known_args if "--" in argv else self.parse_known_intermixed_args
        args, unknown = parse(argv)
        if unknown:
            raise ConfigError(f"unexpected argument {unknown[0]!r}; see {self.prog} --help")
        return args

    def error(self, message: str) -> NoReturn:
        """Say what is wrong in one sentence; the whole usage is a ``--help`` away."""
        raise ConfigError(f"{message}; see {self.prog} --help")


def _default(key: "dataclasses.Field[Any]") -> str:
    """Say what holds where neither the file nor the command line has the key."""
    made = key.default_factory
    value = key.default if made is dataclasses.MISSING else made()
    return "" if value is dataclasses.MISSING or value in ("", None, []) else f" (else {value})"


def overrides(args: argparse.Namespace) -> dict[str, str]:
    """Return the config keys given on the command line."""
    names = [key.name for key in dataclasses.fields(Config)]
    return {name: getattr(args, name) for name in names if hasattr(args, name)}


def refuse_other(folder: Path, kind: str) -> None:
    """Raise BundleError where replacing ``folder`` by a bundle of ``kind`` loses one of another."""
    try:
        found = manifest_of(folder)["kind"]
    except BundleError:
        return
    if found != kind:
        raise BundleError(f"{folder} holds a whole {found}, which would be lost: name a new folder")


def config_path(name: str) -> Path:
    """Return ``name`` as a path from here, from the project, or as a bare name in configs/."""
    bare = ROOT / "configs" / f"config-{name}.json"
    places = (Path(name), ROOT / name, ROOT / "configs" / name, bare)
    found = next((path for path in places if path.is_file()), None)
    return found or (Path(name) if "/" in name or name.endswith(".json") else bare)


def shown(path: Path) -> str:
    """Return ``path`` as a user here would type it."""
    relative = os.path.relpath(path)
    return shlex.quote(str(path) if relative.startswith("../..") else relative)


def front() -> str:
    """Return the front door as a user here would type it."""
    path = shown(ROOT / "iclassifier")
    return path if "/" in path else f"./{path}"


def count(text: str) -> int:
    """Read an option that counts something; argparse names the option when it is below 1."""
    number = int(text)
    if not 1 <= number < 2**31:
        raise argparse.ArgumentTypeError(f"{text} is no count of 1 or more")
    return number


def share(text: str) -> float:
    """Read an option that is a number from 0 to 1."""
    number = float(text)
    if not 0 <= number <= 1:
        raise argparse.ArgumentTypeError(f"{text} is no number from 0 to 1")
    return number


def seconds(text: str) -> float:
    """Read an option that is a time, up to a day."""
    number = float(text)
    if not 0 < number <= 86_400:
        raise argparse.ArgumentTypeError(f"{text} is no number of seconds up to 86400")
    return number


def port(text: str) -> int:
    """Read an option that is a port; 0 stands for a free one."""
    number = int(text)
    if not 0 <= number < 2**16:
        raise argparse.ArgumentTypeError(f"{text} is no port from 0 to 65535")
    return number


def say(text: str) -> None:
    """Print a line of a verb's result."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
