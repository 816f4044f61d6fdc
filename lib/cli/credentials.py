"""The command `credentials`: set, show or delete a secret."""

from __future__ import annotations

import getpass
import sys

from lib.cli.arguments import how_to_type
from lib.cli.console import Console
from lib.config.settings import Settings
from lib.errors import CredentialError, SettingsError


def credentials(settings: Settings, console: Console, action: str, name: str | None) -> int:
    """Set, show or delete a secret, and return the exit code.

    The secret is typed without an echo or read from standard input. It is never an argument, because every user of the
    machine can see arguments. Raises CredentialError or SettingsError.
    """
    from lib.config import secrets as secrets

    if action == "show":
        missing = 0
        for each in [name] if name else ["keboola", "postgres"]:
            try:
                console.text(f"{each}: {secrets.show_secret(settings, each)}")
            except CredentialError as error:
                console.error(f"{each}: {error}")
                missing = 2
        return missing
    if name is None:
        raise SettingsError(f"say which secret: {how_to_type(f'credentials {action} keboola', settings)} (or postgres)")
    if action == "delete":
        places = secrets.delete_secret(settings, name)
        console.text(f"{name}: deleted from {', '.join(places)}" if places else f"{name}: nothing was stored here")
        return 0
    if sys.stdin is not None and sys.stdin.isatty():
        try:
            value = getpass.getpass(f"{'Storage API token' if name == 'keboola' else 'password'} (not shown): ")
        except (EOFError, KeyboardInterrupt):
            raise CredentialError("nothing was typed, nothing was stored") from None
    else:
        value = (sys.stdin.readline() if sys.stdin is not None else "").rstrip("\r\n")
        if not value:
            raise CredentialError("no secret on standard input: run it in a terminal, or redirect a file into it")
    console.text(f"{name}: stored in {secrets.set_secret(settings, name, value)}")
    return 0
