"""README and the documents in docs/, with their code blocks and questions."""

from __future__ import annotations

import re
from pathlib import Path

from tests.support import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
#: README and the documents, by path
DOCUMENTS: dict[Path, str] = {
    path: path.read_text(encoding="utf-8") for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
}
#: each query in the documents, or the name of a question of the page, with the answer below it
ANSWERS = {
    question: answer
    for text in DOCUMENTS.values()
    for pattern in (r"^```\n(SELECT .*?);\n\n(.*?)\n```$", r"report/questions/(\w+)\.sql\).*?\n\n```\n(.*?)\n```$")
    for question, answer in re.findall(pattern, text, re.MULTILINE | re.DOTALL)
}


def section(heading: str) -> str:
    """The text below this heading, which only one document has."""
    found = [
        match[1]
        for text in DOCUMENTS.values()
        for match in re.finditer(rf"^## {re.escape(heading)}$(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    ]
    assert len(found) == 1, f"{len(found)} documents have a section {heading!r}"
    return found[0]


def blocks_in(text: str, language: str) -> list[str]:
    """The code blocks of a language, without their indentation."""
    found = re.findall(r"^( *)```(\w*)\n(.*?)^ *```$", text, re.MULTILINE | re.DOTALL)
    return [re.sub(rf"^{indent}", "", block, flags=re.MULTILINE) for indent, kind, block in found if kind == language]


def blocks(language: str, under: str) -> list[str]:
    """The code blocks of a language in the section with this heading."""
    return blocks_in(section(under), language)


def typed_commands(under: str) -> list[list[str]]:
    """The commands after `python` in the plain code blocks of a section."""
    lines = "\n".join(blocks("", under)).splitlines()
    return [line.split()[1:] for line in lines if line.startswith("python ")]
