"""A PostgreSQL server of its own for a test, from Debian's package, on loopback."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flows.serving import servers

USER, PASSWORD = "modelpress", "s3cret-of-a-test"


@contextmanager
def postgresql() -> Iterator[str]:
    """The URL of an empty database, password included, for the length of the block."""
    tools = max(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
    folder = Path(
        tempfile.mkdtemp(prefix="postgresql-")
    )  # not below pytest's, which only its owner may enter
    # PostgreSQL refuses to run as root.
    become = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
    if become:
        shutil.chown(folder, "postgres")

    def tool(name: str, *arguments: str) -> None:
        subprocess.run(
            [*become, str(tools / name), *arguments], cwd=folder, check=True, stdout=subprocess.DEVNULL
        )

    secret = folder / "password"
    secret.write_text(PASSWORD, encoding="utf-8")
    secret.chmod(0o644)
    with servers.bind(0) as listener:
        port = listener.getsockname()[1]
    data = str(folder / "data")
    tool("initdb", "-D", data, "-U", USER, "--auth=scram-sha-256", f"--pwfile={secret}", "--no-sync")
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder} -c fsync=off"
    tool("pg_ctl", "-D", data, "-o", options, "-l", str(folder / "log"), "-w", "start")
    try:
        yield f"postgresql://{USER}:{PASSWORD}@127.0.0.1:{port}/postgres"
    finally:
        tool("pg_ctl", "-D", data, "-m", "immediate", "stop")
        shutil.rmtree(folder)
