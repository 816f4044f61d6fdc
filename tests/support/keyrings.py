"""A keyring for tests: the real package, with a backend that keeps a JSON file."""

from __future__ import annotations

from pathlib import Path

import pytest

BACKEND = '''
import fcntl, json, os, sys, time
from pathlib import Path
from keyring.backend import KeyringBackend

class Kept(KeyringBackend):
    """Keeps secrets in a file beside this module."""
    priority = 9
    file = Path(__file__).with_name("kept.json")
    def _all(self): return json.loads(self.file.read_text()) if self.file.exists() else {}
    def get_password(self, service, username):
        print("a backend that talks")
        with self.file.with_name("asked").open("a") as asked: asked.write("x")
        return self._all().get(f"{service}/{username}")
    def set_password(self, service, username, password):
        self.file.write_text(json.dumps({**self._all(), f"{service}/{username}": password}))
    def delete_password(self, service, username):
        kept = self._all()
        del kept[f"{service}/{username}"]
        self.file.write_text(json.dumps(kept))

class Forgets(Kept):
    def set_password(self, service, username, password): pass

class Hangs(Kept):
    def get_password(self, service, username):
        held = self.file.with_name("held").open("w")
        fcntl.flock(held, fcntl.LOCK_EX)
        os.fork()
        held.write("held, ")
        held.flush()
        time.sleep(30)

class Prompts(Kept):
    def get_password(self, service, username):
        return open("/dev/tty").readline()

class Locked(Kept):
    def get_password(self, service, username): raise RuntimeError("Failed to unlock the collection!")
    def set_password(self, service, username, password): raise RuntimeError(f"cannot keep {password}")
    delete_password = get_password
'''


@pytest.fixture
def backends(tmp_path: Path) -> Path:
    folder = tmp_path / "backends"
    folder.mkdir()
    (folder / "ourkeyring.py").write_text(BACKEND)
    return folder


def using(backends: Path, name: str = "Kept", **more: str) -> dict[str, str]:
    return {"PYTHONPATH": str(backends), "PYTHON_KEYRING_BACKEND": f"ourkeyring.{name}", **more}


@pytest.fixture
def bare() -> dict[str, str]:
    """An environment without a keyring backend, whatever the machine has."""
    return {"PYTHON_KEYRING_BACKEND": "keyring.backends.fail.Keyring"}


def file_with(path: Path, content: str | bytes) -> str:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)
