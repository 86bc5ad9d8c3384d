"""tasks/core/common/reachable.py: what people are shown of a URL, and a server that is asked."""

from __future__ import annotations

from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from tasks.core.common.reachable import reach, shown, without_passwords


@pytest.mark.parametrize(
    ("url", "people_see"),
    [
        ("http://host:5000/api", "http://host:5000/api"),
        ("https://me:s3cret@host/api?token=s3cret#s3cret", "https://host/api"),
        ("postgresql+psycopg://me:p@s3cret@host:1/db", "postgresql+psycopg://host:1/db"),
        ("sqlite:///mlflow.db", "sqlite:///mlflow.db"),
    ],
)
def test_url_has_no_password_when_it_is_shown(url: str, people_see: str) -> None:
    assert shown(url) == people_see


def test_text_keeps_all_but_passwords_when_urls_stand_in_it() -> None:
    said = without_passwords("GET http://me:s3cret@host/a failed, see mail@host and https://token@other/b")
    assert said == "GET http://host/a failed, see mail@host and https://other/b"


def test_server_is_reached_when_its_url_holds_a_password(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    class Health(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(401)  # an answer, too

    with ThreadingHTTPServer(("127.0.0.1", 0), Health) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("STORE", f"http://me:s3cret@127.0.0.1:{server.server_port}")
        reach("STORE", "/health")
        server.shutdown()
    assert asked == ["/health"]
