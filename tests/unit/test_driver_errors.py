"""Errors of the driver become errors of ours."""

from __future__ import annotations

import psycopg2
import pytest

from lib.errors import ConnectionLost, ScriptError
from lib.postgres.driver_errors import translate


@pytest.mark.parametrize("kind", [psycopg2.OperationalError, psycopg2.InterfaceError, psycopg2.DatabaseError])
def test_a_lost_connection_is_known_by_whatever_error_the_driver_reports(kind: type[psycopg2.Error]) -> None:
    """Otherwise it would count as an error of one script and its job."""
    found = translate(kind("server closed the connection unexpectedly"), "silver/a.sql:1", ScriptError)
    assert isinstance(found, ConnectionLost)
    assert str(found).startswith(
        "silver/a.sql:1: server closed the connection unexpectedly\n    The connection to PostgreSQL was lost;"
    )
