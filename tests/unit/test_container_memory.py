"""How much memory a server can use in a container."""

from __future__ import annotations

from pathlib import Path

from lib.postgres.embedded.server import memory


def test_a_container_with_little_memory_is_not_taken_for_the_whole_machine(tmp_path: Path) -> None:
    (tmp_path / "limited").write_text(f"{300 * 1024**2}\n")
    (tmp_path / "unlimited").write_text("max\n")
    assert memory([str(tmp_path / "missing"), str(tmp_path / "limited")]) == 300
    assert memory([str(tmp_path / "unlimited")]) == memory([]) > 300
