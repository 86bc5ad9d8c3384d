"""Whether a server that an environment variable names answers, before anything waits for it for minutes."""

from __future__ import annotations

import os
import re
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from urllib.parse import urlsplit

from tasks.core.common.errors import BadInput

_USER = re.compile(r"(?<=://)[^/\s]+@")  # and password, to the last @ before the path
ANSWER_S = 10.0  # how long a server is given
PORTS = {
    "http": 80,
    "https": 443,
    "postgresql": 5432,
    "mysql": 3306,
    "mssql": 1433,
}  # unless it names another


def reach(variable: str, health: str = "") -> None:
    """Return if the server at the URL in `variable` answers within ANSWER_S: anything to a GET of the URL with
    `health` behind it, or, as a database, to a connection. A URL of something else, as of a file, is let through.

    Raises:
        BadInput: it does not answer, or the URL is none. The line holds no password.
    """
    url = os.environ.get(variable, "")
    try:
        parts = urlsplit(url)
        kind, host, port = parts.scheme.partition("+")[0], parts.hostname, parts.port
    except ValueError:
        raise BadInput(f"{variable}: not a URL such as http://HOST:PORT") from None
    if kind not in PORTS or host is None:
        return
    if kind in ("http", "https"):
        said = _asked(lambda: _get(shown(url).rstrip("/") + health))
    else:
        said = _asked(lambda: socket.create_connection((host, port or PORTS[kind]), ANSWER_S / 2).close())
    if said:
        raise BadInput(
            f"{variable}: {shown(url)} does not answer ({said}): start that server, or unset {variable}"
        )


def _get(url: str) -> None:
    with suppress(urllib.error.HTTPError):  # that is an answer, too
        urllib.request.urlopen(url, timeout=ANSWER_S / 2).close()


def _asked(ask: Callable[[], None]) -> str:
    """Empty once `ask` succeeds, or what it says in the end: a server may be just starting."""
    end = time.monotonic() + ANSWER_S / 2
    while True:
        try:
            ask()
            return ""
        except OSError as error:
            reason = getattr(error, "reason", error)
            said = getattr(reason, "strerror", None) or str(reason)
        if time.monotonic() > end:
            return said
        time.sleep(0.5)


def shown(url: str) -> str:
    """A URL for people: where it leads, without user, password and query."""
    return re.split("[?#]", without_passwords(url))[0]


def without_passwords(text: str) -> str:
    """A text without user and password of the URLs in it."""
    return _USER.sub("", text)
