"""The sample inventory, made by another process."""

from __future__ import annotations

import subprocess
import sys

from sandbox.inventory import (
    products,
    stock,
)
from tests.support import ROOT


def test_another_process_makes_the_same_rows() -> None:
    both = "list(products(60, 3, story_ends=9, odd_names=True)), list(stock(60, 2, 3, story_ends=9))"
    code = f"from sandbox.inventory import *; print({both})"
    root = ROOT
    asked = {"capture_output": True, "cwd": root, "check": True, "text": True}
    other = subprocess.run([sys.executable, "-c", code], env={"PYTHONHASHSEED": "7", "PYTHONUTF8": "1"}, **asked).stdout
    here = list(products(60, 3, story_ends=9, odd_names=True)), list(stock(60, 2, 3, story_ends=9))
    assert other == "{!r} {!r}\n".format(*here)
