"""Where servers listen."""

import pytest

from flows.serving import servers
from tasks.core.common.errors import BadInput


def test_each_gets_a_port_of_its_own_when_two_runs_ask_for_the_usual_one_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with servers.bind(0) as free:
        port = free.getsockname()[1]
    monkeypatch.setattr(servers, "PREFECT_PORT", port)
    with servers.bind(None) as one, servers.bind(None) as other:
        assert one.getsockname() == (servers.HOST, port)
        assert other.getsockname()[0] == servers.HOST
        assert other.getsockname()[1] != port
        with pytest.raises(BadInput, match=f"port {port} is in use: choose another one"):
            servers.bind(port)
