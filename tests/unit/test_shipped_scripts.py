"""The shipped scripts as files: each is in the registry, and rules that are written twice are the same."""

from __future__ import annotations

import re

from lib.elt_schema.strangers import ROLES
from tests.support import ROOT
from tests.support.breaks import BREAK_A_DAY, BREAK_MORE_DAYS
from tests.support.warehouse import (
    CHECKS,
    JOBS,
    SCRIPTS,
    TRANSFORMS,
)


def test_history_and_gold_are_two_jobs() -> None:
    layers = {name: {script.split("/")[0] for script in job["transform"]} for name, job in JOBS.items()}
    assert layers["inventory_history"] == {"silver"} and layers["inventory_gold"] == {"gold"}
    assert [name for name, found in layers.items() if "gold" in found] == ["inventory_gold"]
    assert JOBS["inventory_gold"]["depends_on"] == ["inventory_history"]


def test_every_script_is_in_the_registry() -> None:
    scripts = {str(path.relative_to(SCRIPTS)) for path in SCRIPTS.glob("*/*.sql")}
    assert scripts == {*TRANSFORMS, *CHECKS}


def test_every_check_can_fail() -> None:

    assert sorted([*BREAK_A_DAY, *BREAK_MORE_DAYS]) == sorted(CHECKS)
    assert sorted(f"checks/{path.name}" for path in (SCRIPTS / "checks").iterdir()) == sorted(CHECKS)


def test_both_places_that_say_who_is_trusted_say_the_same() -> None:
    """Python needs the rule before it trusts schema elt, and elt.publish_rows must work without Python."""

    def rule(text: str) -> list[str]:
        text = re.sub("--.*", "", text)
        begin = text.index("members (member, roleid) AS (")
        return text[begin : text.index("SELECT oid FROM administrators", begin)].split()

    assert rule(ROLES) == rule((ROOT / "lib/elt_schema/publish_rows.sql").read_text(encoding="utf-8"))
