"""Columns by name: matching, missing ones, and what may be accepted once."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from lib.errors import LoadError, SettingsError
from lib.extract import SourceTable
from lib.load.contract import Contract, Match, landing_name, match
from lib.load.guards import Accepted, nearest_column


def source(*columns: str) -> SourceTable:
    return SourceTable("in.c-main.t", columns, None, True, "version")


def contract(*columns: str, fills_itself: Sequence[str] = ()) -> Contract:
    return Contract("bronze.t", columns, frozenset(fills_itself))


# ---- names ----------------------------------------------------------------------------------------------------------


def test_names_land_in_lower_case_and_reduced_to_letters_digits_and_underscores() -> None:
    names = ("JSON_parentId", "Price (EUR)", "größe", "a.b-c", "order", "2nd", "_timestamp", "Ünï_😀")
    landed = ("json_parentid", "price__eur_", "gr__e", "a_b_c", "order", "2nd", "_timestamp", "_n___")
    assert tuple(map(landing_name, names)) == landed


def test_a_match_tells_what_is_there_what_is_missing_and_what_nobody_asked_for() -> None:
    found = match(contract("id", "v", "w", fills_itself=["n"]), source("W", "extra", "n", "ID"))
    assert found == Match({"id": "ID", "w": "W"}, ("v",), ("extra", "n"))
    assert list(found.found) == [
        "w",
        "id",
    ], "in the order of the source, so that an export of all of it is the usual one"


@pytest.mark.parametrize(("first", "second"), [("id", "ID"), ("a-b", "a.b"), ("größe", "grüße"), ("İ", "i̇")])
def test_two_names_that_meet_are_refused_by_both_names_where_bronze_asks_for_them(first: str, second: str) -> None:
    with pytest.raises(LoadError, match="in.c-main.t: columns .* would both land as") as caught:
        match(contract("x", landing_name(first)), source(first, "x", second))
    assert repr(first) in str(caught.value) and repr(second) in str(caught.value)
    assert match(contract("x"), source(first, "x", second)).unused == (first, second)


@pytest.mark.parametrize(
    ("missing", "candidates", "near"),
    [
        ("sku", ["sku_code", "name"], "sku_code"),
        ("quantity_available", ["available", "quantity_on_hold"], "available"),
        ("name", ["nmae"], "nmae"),
        ("sku", ["stock_keeping_unit"], ""),
        ("JSON_id".lower(), ["JSON_parent"], "JSON_parent"),
        ("is_active", [], ""),
    ],
)
def test_the_nearest_name_is_the_one_that_a_rename_made(missing: str, candidates: list[str], near: str) -> None:
    assert nearest_column(missing, candidates) == near


# ---- as a person types it -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("products", "--accept needs JOB:GUARD, not 'products'; guards:"),
        (":shrink", "--accept needs JOB:GUARD, not ':shrink'; guards:"),
        ("products:shrnk", "not 'products:shrnk'; did you mean 'shrink'?"),
    ],
)
def test_what_cannot_be_accepted_is_told(text: str, said: str) -> None:
    with pytest.raises(SettingsError) as caught:
        Accepted.parse([text], [], "main.py run")
    assert said in str(caught.value) and caught.value.exit_code == 2


def test_a_job_that_a_run_does_not_load_cannot_be_accepted() -> None:
    accepted = Accepted.parse(["c:shrink"], [], "main.py run")
    accepted.check_jobs(["a", "c"])
    with pytest.raises(SettingsError, match="--accept names c, which this run does not load; it loads a"):
        accepted.check_jobs(["a"])


def test_accepting_a_shrink_the_old_way_means_an_empty_export_too() -> None:
    accepted = Accepted.parse([], ["c"], "main.py run")
    assert accepted.given == {("c", "shrink"), ("c", "empty")}
