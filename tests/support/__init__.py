"""What tests share. A test imports from here, and never from another test."""

from pathlib import Path

#: of the project
ROOT = Path(__file__).resolve().parents[2]
