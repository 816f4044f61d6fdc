"""Adds a job to the text of elt_jobs.json, or takes one out. What else stands there keeps its order and formatting."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping

#: a string, or one character that opens, closes or separates
TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\]:,]')


def with_job(text: str, name: str, entry: Mapping[str, object]) -> str:
    """The text with one more job at its end. It is valid JSON with an object at its root."""
    line_end = "\r\n" if "\r\n" in text else "\n"
    inside, _, after = text.rpartition("}")
    body = inside.rstrip()
    indent = re.search(r'\n([ \t]+)"', text)
    unit = indent[1] if indent else "  "
    comma = "," if not body.endswith("{") else ""
    added = f"{comma}\n{unit}{json.dumps(name)}: {_written(entry, unit)}\n}}"
    return body + added.replace("\n", line_end) + after


def without_job(text: str, name: str) -> str:
    """The text without this job."""
    members = list(_members(text))
    place = next(place for place, (key, _, _) in enumerate(members) if key == name)
    _, start, end = members[place]
    if place + 1 < len(members):
        return text[:start] + text[members[place + 1][1] :]
    if place:
        return text[: members[place - 1][2]] + text[end:]
    return text[:start].rstrip() + text[end:]


def _written(entry: Mapping[str, object], unit: str) -> str:
    """An entry as the shipped file writes it: an object on one line each, a list on one line if it fits."""
    lines = []
    for key, value in entry.items():
        text = _on_one_line(value)
        if isinstance(value, list) and len(text) > 90:
            inner = ",\n".join(f"{unit * 3}{_on_one_line(item)}" for item in value)
            text = f"[\n{inner}\n{unit * 2}]"
        lines.append(f"{unit * 2}{json.dumps(key)}: {text}")
    return "{\n" + ",\n".join(lines) + f"\n{unit}}}"


def _on_one_line(value: object) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_on_one_line, value))}]"
    text = json.dumps(value, ensure_ascii=False)
    return "{ " + text[1:-1] + " }" if isinstance(value, dict) else text


def _members(text: str) -> Iterator[tuple[str, int, int]]:
    """Key, begin and end of each member of the object at the root. The end is before the comma."""
    depth, key, start = 0, "", 0
    for token in TOKEN.finditer(text):
        word = token[0]
        if depth == 1 and word.startswith('"') and not key:
            key, start = json.loads(word), token.start()
        elif depth == 1 and word in ",}" and key:
            yield key, start, len(text[: token.start()].rstrip())
            key = ""
        depth += {"{": 1, "[": 1, "}": -1, "]": -1}.get(word, 0)
