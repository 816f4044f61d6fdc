"""What every command does first."""

from __future__ import annotations

import sys

import pytest

from lib.cli.command_line import guarded


def test_windows_itself_is_told_of_wsl(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    assert guarded(lambda: 0) == 2
    assert "Windows itself is not supported. In WSL it works" in capsys.readouterr().err
