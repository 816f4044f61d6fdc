"""The command `stop`: stops the embedded PostgreSQL."""

from __future__ import annotations

from lib.cli.console import Console
from lib.config.settings import Settings
from lib.errors import SettingsError


def stop_server(settings: Settings, console: Console) -> int:
    """Stop the embedded server; its data stay. Raises SettingsError if the settings do not name an embedded one."""
    if not settings.postgres.embedded:
        raise SettingsError(
            "the PostgreSQL of elt_settings.toml is not an embedded one: this command can stop only a server that"
            " this project started"
        )
    from lib.postgres.embedded.server import stop_running

    stopped = stop_running(settings.state / "postgres")
    console.text("stopped; the data stay" if stopped else "was not running")
    return 0
