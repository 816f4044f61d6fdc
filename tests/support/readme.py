"""README and what stands in it."""

from __future__ import annotations

import re

from tests.support import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
#: each question of README and the answer below it
ANSWERS = dict(re.findall(r"^```\n(SELECT .*?);\n\n(.*?)\n```$", README, re.MULTILINE | re.DOTALL))


def blocks(language: str, under: str) -> list[str]:
    """The code blocks of a language in the section with this heading, without their indentation."""
    section = re.search(rf"^## {under}$(.*?)(?=^## |\Z)", README, re.MULTILINE | re.DOTALL)
    assert section, f"README has no section {under!r}"
    found = re.findall(r"^( *)```(\w*)\n(.*?)^ *```$", section[1], re.MULTILINE | re.DOTALL)
    return [re.sub(rf"^{indent}", "", text, flags=re.MULTILINE) for indent, kind, text in found if kind == language]


def typed_commands(under: str) -> list[list[str]]:
    """What stands after `python` in the plain blocks of a section."""
    lines = "\n".join(blocks("", under)).splitlines()
    return [line.split()[1:] for line in lines if line.startswith("python ")]
