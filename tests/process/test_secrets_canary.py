"""No secret can be read anywhere: in output, tracebacks, history, arguments or files."""

from __future__ import annotations

import json
import signal
import urllib.parse
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from sandbox.faults import Fault
from sandbox.inventory import put_inventory
from sandbox.keboola_server import KeboolaServer
from tests.support.checkout import Morning
from tests.support.clouds import CLOUDS
from tests.support.databases import EmptyDatabase

TOKEN = "815-4711-canaryCanaryCanaryCanary"
PASSWORD = "canary-pass/word?&="
#: names before the signature in a presigned URL, a SAS or a header
MARKS = ("X-Signature=", "sig=", "Signature=", "Bearer ", "X-StorageApi-Token")


class Aviary(Morning):
    """A project with known secrets: the token, the password, and all credentials of the stores."""

    def __init__(self, folder: Path, keboola: KeboolaServer, database: EmptyDatabase) -> None:
        super().__init__(folder / "project", keboola, database)
        self.secrets = {TOKEN, TOKEN.rpartition("-")[2], PASSWORD, urllib.parse.quote(PASSWORD)}
        self.scratch = folder / "scratch"
        self.scratch.mkdir()
        password = folder / "password"
        password.write_text(PASSWORD + "\n")
        token = folder / "token"
        token.write_text(TOKEN + "\n")
        self.environ |= {
            "KEBOOLA_TOKEN_FILE": str(token),
            "POSTGRES_PASSWORD_FILE": str(password),
            "TMPDIR": str(self.scratch),
            "PYTHONFAULTHANDLER": "1",
        }
        (self.folder / "token").unlink()
        grant = keboola.style.grant

        def recorded(target: object) -> dict[str, dict[str, object]]:
            fields = grant(target)
            for value in (value for credentials in fields.values() for value in credentials.values()):
                self.secrets |= {value, value.rpartition("sig=")[2]} if len(str(value)) > 30 else set()
            return fields

        keboola.style.grant = recorded

    def leaks(self, text: str) -> list[str]:
        return [secret for secret in (*self.secrets, *MARKS) if secret in text]

    def left_behind(self) -> str:
        """Everything that the run left: its files, the history, and what the server shows of its sessions."""
        files = [path for folder in (self.folder, self.scratch) for path in folder.rglob("*") if path.is_file()]
        source = {".py", ".sql", ".md", ".pyc", ".json", ".txt"}
        texts = [path.read_text(errors="replace") for path in files if path.suffix not in source]
        tables = self.database.sql(
            "SELECT format('%I.%I', schemaname, tablename) FROM pg_tables WHERE schemaname = 'elt'"
        )
        texts += [str(self.database.sql(f"SELECT t::text FROM {table} AS t")) for (table,) in tables]
        texts.append(str(self.database.sql("SELECT application_name, query FROM pg_stat_activity")))
        return "\n".join(texts)


@pytest.fixture(params=["gcp", "aws", "azure"])
def aviary(request: pytest.FixtureRequest, tmp_path: Path, database: EmptyDatabase) -> Iterator[Aviary]:
    with KeboolaServer(token=TOKEN, store=CLOUDS[request.param], polls=0) as keboola:
        put_inventory(keboola, day=1, products=50, odd_names=True)
        yield Aviary(tmp_path, keboola, database)
        keboola.faults.release()


#: an error of Keboola that repeats the request with its token
ECHO = {"message": f"no {TOKEN} at https://s.io/x?sig=abc", "code": "a.b", "exceptionId": "e-1"}
REFUSAL = json.dumps({**ECHO, "error": ECHO["message"]})
FAILED_JOB = json.dumps({"id": 7, "status": "error", "error": ECHO})
FAULTS: dict[str, tuple[Fault, ...]] = {
    "all is well": (),
    "the store refuses": (Fault("slice", "status", status=403, nth=None),),
    "the object is gone": (Fault("slice", "status", status=404, nth=None),),
    "a slice ends early": (Fault("slice", "truncate", at=0.5),),
    "the token is refused": (Fault("table", "status", status=401, body=REFUSAL),),
    "an error repeats the token": (Fault("export-async", "status", status=400, body=REFUSAL),),
    "a failed job repeats the token": (Fault("export-async", "status", status=202, body=FAILED_JOB),),
    "the manifest is no manifest": (Fault("manifest", "status", status=200, body="<html>sig=abc"),),
}


@pytest.mark.parametrize(
    "aviary, name",
    [("gcp", name) for name in FAULTS] + [(cloud, "the store refuses") for cloud in ("aws", "azure")],
    indirect=["aviary"],
)
def test_a_run_leaves_no_secret_behind(aviary: Aviary, name: str) -> None:
    faults = FAULTS[name]
    for fault in faults:
        aviary.keboola.faults.add(fault)
    ran = aviary.run("elt_daily_load.py")
    assert (ran.returncode == 0) == (not faults), ran.stdout
    assert len(aviary.secrets) > 4 or "token" in ran.stdout
    assert aviary.leaks(ran.stdout) == []
    if name in ("all is well", "an error repeats the token"):
        page = aviary.run("main.py", "report")
        assert page.returncode == 0 and (aviary.folder / ".elt/report.html").exists(), page.stdout
        assert aviary.leaks(page.stdout) == []
    assert aviary.leaks(aviary.left_behind()) == []


def family(pid: int) -> list[int]:
    """A process and all its descendants."""
    children: list[str] = []
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with suppress(FileNotFoundError):  # the process has ended meanwhile
            children += (thread / "children").read_text().split()
    return [pid, *(one for child in children for one in family(int(child)))]


def test_neither_arguments_nor_a_crash_show_a_secret(aviary: Aviary) -> None:
    aviary.keboola.faults.add(Fault("slice", "stall", at=0.5))
    with aviary.start("elt_daily_load.py") as process:
        assert aviary.keboola.faults.stalled.wait(60)
        arguments = "".join(Path(f"/proc/{pid}/cmdline").read_text() for pid in family(process.pid))
        during = aviary.left_behind()
        process.send_signal(signal.SIGABRT)
        output, _ = process.communicate(timeout=60)
    assert "elt_daily_load.py" in arguments and "Fatal Python error: Aborted" in output
    for text in (arguments, during, output):
        assert aviary.leaks(text) == []
