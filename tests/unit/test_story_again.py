"""The story of the demo, when the demo is started again on a later day."""

from __future__ import annotations

from datetime import timedelta

import pytest

from sandbox.demo import DAYS
from tests.support.mornings import THRESHOLDS
from tests.support.oracle_history import Answers, Load
from tests.support.story import TODAY, bronze, days


@pytest.mark.parametrize("later", [1, 7, 13, 16, 22, 29, 45])
def test_a_demo_that_is_started_again_on_a_later_day_says_the_same(later: int) -> None:
    """Computed in Python: the days played before have the stock of the earlier start."""
    again = TODAY + timedelta(days=later)
    ends = {day: TODAY for day in days(DAYS, TODAY)}
    ends = {day: again for day in days(DAYS, again)} | ends
    answers = Answers([Load(day, *bronze(day, end), THRESHOLDS) for day, end in sorted(ends.items())], THRESHOLDS)
    assert answers.today.day == again
    ordered = {row[0]: (row[9], row[10]) for row in answers.reorder_proposals()}
    assert ordered.keys() == {"KES-ONE-BK", "KES-ONE-WH", "KES-PRO-GR"}
    assert ordered["KES-ONE-BK"][1] == "runs out before a delivery arrives"
    out_on = {row[0]: row[7] for row in answers.stock_forecast() if row[7]}
    assert min(out_on, key=out_on.__getitem__) == "KES-ONE-BK"
    assert [row[0] for row in answers.slow_movers()] == ["BCK-STL-24"]
    assert [row[0] for row in answers.quarantined_stock() if row[-1] >= 21] == ["CAS-LTH-BN"]
