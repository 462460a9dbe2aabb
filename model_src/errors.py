"""The exceptions a user can cause, each with a message that says what to do.

UserError
├── ConfigError      a key, value or option that is not known or not of its type
├── DataError        a data file or data directory that breaks the data contract
├── BundleError      a model or export directory that is missing, damaged or of another version
├── RefusedError     an export that is not close enough to its model
├── PackageError     a package that a format needs is not installed
├── RequestError     a request body that breaks the serving contract
│   └── TooLargeError    one that is larger than the server takes
└── ServerError      a server that did not start, answer or stop
"""

import difflib
from collections.abc import Iterable
from http import HTTPStatus


class UserError(Exception):
    """Base of all errors with a cause outside this code; shown without a traceback."""


class ConfigError(UserError):
    """A configuration key, value or command-line option is wrong."""


class DataError(UserError):
    """A data file breaks the data contract."""


class BundleError(UserError):
    """A model or export directory is missing, damaged or of another version."""


class RefusedError(UserError):
    """An export is not close enough to its model."""


class PackageError(UserError):
    """A package that a format needs is not installed."""


class RequestError(UserError):
    """A request body breaks the serving contract; the message is safe to send back."""

    status = HTTPStatus.BAD_REQUEST


class TooLargeError(RequestError):
    """A request body is larger than the server takes."""

    status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE


class ServerError(UserError):
    """A server did not start, answer or stop."""


def nearest(word: str, choices: Iterable[str]) -> str:
    """Return ``; did you mean X?`` for the closest choice, or the list of choices, if any."""
    choices = sorted(choices)
    if not choices:
        return ""
    close = difflib.get_close_matches(word, choices, n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else f"; choose from {', '.join(choices)}"
