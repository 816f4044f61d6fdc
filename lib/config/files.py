"""Writes a file in one step: a reader sees the old text or the new one, and so does the next start after a crash."""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from pathlib import Path


def replace_file(path: Path, text: str, mode: int | None = None) -> None:
    """Replace a file, or make one. Line ends are written as they are.

    Without `mode` the file keeps its permissions, and a new one gets those of any new file. Nobody else can read the
    text before it has its permissions. Raises OSError; the old file then stays.
    """
    path = path.resolve()  # what a link leads to, not the link
    if mode is None and path.exists():
        mode = path.stat().st_mode & 0o777
    elif mode is None:
        os.umask(mask := os.umask(0))
        mode = 0o666 & ~mask
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="") as file:
            file.write(text)
            file.flush()
            os.fsync(handle)
        os.chmod(temporary, mode)
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise
