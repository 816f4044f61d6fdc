"""The command `psql`: opens psql on the configured database."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence

from lib.config.settings import Settings, require_postgres
from lib.elt_schema.strangers import psql_path
from lib.postgres.connection import Database
from lib.postgres.driver_errors import translated


def psql(settings: Settings, arguments: Sequence[str]) -> int:
    """Replace this process by psql on the configured database.

    The password is passed in an environment variable, because every user of the machine can see the arguments.
    """
    require_postgres(settings)
    database = Database(settings)
    connection = database.connect("elt psql")
    with translated("PostgreSQL"):
        path = psql_path(connection)
    connection.close()
    # the user's own PGOPTIONS come last, so they take precedence
    environ = os.environ | {"PGOPTIONS": f"-c search_path={path} {os.environ.get('PGOPTIONS', '')}".strip()}
    if database.password is not None:
        environ["PGPASSWORD"] = database.password.reveal()
    binary = shutil.which("psql") if not settings.postgres.embedded else None
    if binary is None:
        from lib.postgres.embedded.package import programs

        binary = str(programs(18) / "psql")
    target = " ".join(f"{key}='{_escaped(str(value))}'" for key, value in database.address.items())
    sys.stdout.flush()
    os.execve(binary, [binary, *([target] if target else []), *arguments], environ)


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace("'", "\\'")
