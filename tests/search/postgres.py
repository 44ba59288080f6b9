"""A private PostgreSQL server on loopback: its own folder, an unprivileged user, a port of its own, and gone afterwards."""

import contextlib
import os
import pwd
import secrets
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path


def why_not():
    """Why there can be no server here; empty where there can."""
    if not programs():
        return "no PostgreSQL server here: apt-get install postgresql"
    try:
        import psycopg  # noqa: F401
    except ImportError:
        return "no psycopg: pip install 'autovae[postgres]'"
    if os.geteuid() == 0 and not user():
        return "PostgreSQL does not run as root, and there is neither a user postgres nor nobody"
    return ""


def programs():
    """The folder of initdb and pg_ctl, the newest version first."""
    places = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: -int(path.parent.name))
    found = shutil.which("pg_ctl")
    places += [Path(found).resolve().parent] if found else []
    return next((place for place in places if (place / "initdb").exists() and (place / "pg_ctl").exists()), None)


def user():
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    return None


class Server:
    """Started by the constructor; `restart`, `databases` anew by name, `stop`."""

    def __init__(self):
        self.folder = Path(tempfile.mkdtemp(prefix="autovae-postgres-"))
        self.password = secrets.token_hex(8)
        self.demoted = {}
        (self.folder / "password").write_text(self.password)
        if os.geteuid() == 0:
            account = user()
            self.demoted = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
            for path in (self.folder, self.folder / "password"):
                os.chown(path, account.pw_uid, account.pw_gid)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.run(
            "initdb",
            "-D",
            "data",
            "-U",
            "tester",
            "--auth=scram-sha-256",
            "--pwfile=password",
            "--no-sync",
            "-E",
            "UTF8",
        )
        self.start()

    def run(self, program, *arguments):
        environment = {"PATH": "/usr/bin:/bin", "HOME": str(self.folder), "LC_ALL": "C"}
        result = subprocess.run(
            [programs() / program, *arguments],
            cwd=self.folder,
            env=environment,
            capture_output=True,
            text=True,
            **self.demoted,
        )
        assert result.returncode == 0, f"{program}: {result.stderr or result.stdout}"

    def start(self):
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync=off"
        self.run("pg_ctl", "-D", "data", "-l", "server.log", "-w", "-o", options, "start")

    def halt(self, how="fast"):
        self.run("pg_ctl", "-D", "data", "-m", how, "-w", "stop")

    def stop(self):
        with contextlib.suppress(AssertionError):
            self.halt("immediate")
        shutil.rmtree(self.folder, ignore_errors=True)

    def url(self, database="postgres"):
        return f"postgresql+psycopg://tester:{self.password}@127.0.0.1:{self.port}/{database}"

    def database(self, name):
        """The URL of a new, empty database."""
        import psycopg

        where = f"host=127.0.0.1 port={self.port} user=tester password={self.password} dbname=postgres"
        with psycopg.connect(where, autocommit=True) as connection:
            connection.execute(f'create database "{name}"')
        return self.url(name)
