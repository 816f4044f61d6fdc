"""The expected rows of every gold view after some loads, computed day by day in plain Python: no SQL, no ranges.

A load is a day, its bronze rows and the thresholds at that time. If a day was loaded twice, the later load counts.
Surrogate keys cannot be predicted, so rows have SKU and first day instead of a product key, and the id instead of a
warehouse key. It follows the comments of the views, and uses oracle.py for the silver rows of one load.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from fractions import Fraction
from functools import cached_property
from itertools import pairwise
from math import ceil, floor

from tests.support import oracle
from tests.support.oracle import key_of, rounded

ZERO = Decimal(0)
FOREVER, NEVER = date.max, date.min
MONTHS = ["January", "February", "March", "April", "May", "June", "July"]
MONTHS += ["August", "September", "October", "November", "December"]
WEEKDAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
#: days that a forecast compares
WINDOW = 28
#: defaults: days from an order to its delivery, and days that the stock should last after it
LEAD_DAYS, COVER_DAYS = 14, 28


def of_fraction(number: Fraction, places: int) -> Decimal:
    """Rounded as PostgreSQL rounds."""
    return rounded(Decimal(number.numerator) / Decimal(number.denominator), places)


@dataclass(frozen=True)
class Load:
    """One load."""

    day: date
    products: Sequence[oracle.Row]
    stock: Sequence[oracle.Row]
    thresholds: Mapping[str, int]

    @cached_property
    def silver(self) -> oracle.Warehouse:
        return oracle.recompute(self.products, self.stock, self.thresholds)

    @cached_property
    def orphans(self) -> dict[str, list]:
        """Warehouse -> name, identifier, available, on hand, quarantined, unavailable of stock without a product."""
        links = oracle.links(list(self.products))
        found: dict[str, list] = {}
        for row in self.stock:
            if links.get(row["json_parentid"] or "") is not None:
                continue
            sums = found.setdefault(key_of(row["warehouse_id"]) or "unknown", [set(), set(), ZERO, ZERO, ZERO, ZERO])
            available, on_hand, quarantined, unavailable = (
                oracle.number_of(row[column]) or ZERO for column in oracle.QUANTITIES
            )
            sums[0].add(oracle.line_of(row["warehouse_name"]))
            sums[1].add(oracle.line_of(row["warehouse_identifier"]))
            for place, number in enumerate((available, min(on_hand, available), quarantined, unavailable), start=2):
                sums[place] += number
        return found

    @cached_property
    def stock_rows(self) -> dict[tuple[str, str], tuple]:
        """(SKU, warehouse) -> available, on hand, quarantined, unavailable; without a product the SKU is empty."""
        rows = {
            place: (available, on_hand, quarantined, unavailable)
            for place, (_, _, available, on_hand, _, quarantined, unavailable, _) in self.silver.stock_levels.items()
        }
        return rows | {("", warehouse): tuple(sums[2:]) for warehouse, sums in self.orphans.items()}

    @cached_property
    def totals(self) -> dict[str, Decimal]:
        return {sku: row[3] for sku, row in self.silver.product_status_summary.items()}

    @cached_property
    def statuses(self) -> dict[str, str]:
        return {sku: row[8] for sku, row in self.silver.product_status_summary.items()}

    @cached_property
    def warehouses(self) -> dict[str, tuple[str | None, str | None]]:
        """Warehouse -> name, identifier."""
        names: dict[str, tuple[set, set]] = {}
        for (_, warehouse), (name, identifier, *_) in self.silver.stock_levels.items():
            names.setdefault(warehouse, (set(), set()))[0].add(name)
            names[warehouse][1].add(identifier)
        for warehouse, (of_name, of_identifier, *_) in self.orphans.items():
            names.setdefault(warehouse, (set(), set()))[0].update(of_name)
            names[warehouse][1].update(of_identifier)
        return {
            warehouse: tuple(min(filter(None, one), default=None) for one in both) for warehouse, both in names.items()
        }


class Answers:
    """Every gold view, as a multiset of rows. `thresholds` and `plans` (lead time, cover days) are today's."""

    def __init__(
        self,
        loads: Sequence[Load],
        thresholds: Mapping[str, int],
        plans: Mapping[str, tuple[int | None, int | None]] | None = None,
    ) -> None:
        self.plans = plans or {}
        self.days: dict[date, Load] = {}
        for load in loads:
            self.days[load.day] = load
        self.days = dict(sorted(self.days.items()))
        self.loads = loads
        self.today = Load(loads[-1].day, loads[-1].products, loads[-1].stock, thresholds)
        self.thresholds = thresholds

    def known(self, until: date | None = None) -> list[Load]:
        """Loaded days up to a day, in order."""
        return [load for day, load in self.days.items() if until is None or day <= until]

    def names_on(self, day: date, sku: str) -> str | None:
        """The name of a product on a day, or its last name before."""
        return [load.silver.products[sku][0] for load in self.known(day) if sku in load.silver.products][-1]

    # ---- dimensions -------------------------------------------------------------------------------------------------

    def dim_date(self) -> Counter:
        first, last = min(self.days), max(self.days)
        rows = []
        for offset in range((last - first).days + 1):
            day = first + timedelta(days=offset)
            year, week, weekday = day.isocalendar()
            rows.append(
                (day, day.year, (day.month + 2) // 3, day.month, MONTHS[day.month - 1], year, week, weekday)
                + (WEEKDAYS[weekday - 1], weekday > 5, day in self.days, day == self.today.day)
            )
        return Counter(rows)

    @cached_property
    def versions(self) -> dict[str, list[tuple[date, date, tuple]]]:
        """SKU -> ranges of days with their attributes."""
        versions: dict[str, list[tuple[date, date, tuple]]] = {}
        days = [*self.days, FOREVER]
        for day, next_day in pairwise(days):
            for sku, attributes in self.days[day].silver.products.items():
                ranges = versions.setdefault(sku, [])
                if ranges and ranges[-1][1] == day and ranges[-1][2] == attributes:
                    ranges[-1] = (ranges[-1][0], next_day, attributes)
                else:
                    ranges.append((day, next_day, attributes))
        return versions

    def version_on(self, day: date, sku: str) -> tuple[str, date]:
        """The product version on a day: SKU and first day."""
        if sku == "":
            return "", NEVER
        ((began, _, _),) = [found for found in self.versions[sku] if found[0] <= day < found[1]]
        return sku, began

    def dim_product(self) -> Counter:
        rows = [("", "Unknown product", None, "Unknown", *[None] * 5, False, NEVER, FOREVER, True)]
        for sku, ranges in self.versions.items():
            for began, until, (name, kind, weight, *sides, is_active, has_dimensions) in ranges:
                status = "Active" if is_active else "Inactive"
                volume = None if None in sides else rounded(sides[0] * sides[1] * sides[2], 3)
                rows.append(
                    (sku, name, kind, status, weight, *sides, volume, has_dimensions, began, until, until == FOREVER)
                )
        return Counter(rows)

    def dim_warehouse(self) -> Counter:
        names: dict[str, tuple] = {"unknown": ("Unknown warehouse", None)}
        for load in self.loads:  # in the order of loads, because the latest name counts
            names.update({place: both for place, both in load.warehouses.items() if place != "unknown"})
        return Counter((place, *both, place in self.today.warehouses) for place, both in names.items())

    # ---- facts ------------------------------------------------------------------------------------------------------

    def fact_inventory(self) -> Counter:
        return self._facts([self.days[self.today.day]])

    def fact_inventory_daily(self) -> Counter:
        return self._facts(self.known())

    def _facts(self, loads: Sequence[Load]) -> Counter:
        return Counter(
            (load.day, *self.version_on(load.day, sku), warehouse, *quantities)
            for load in loads
            for (sku, warehouse), quantities in load.stock_rows.items()
        )

    # ---- questions about today --------------------------------------------------------------------------------------

    def product_status_summary(self) -> Counter:
        return Counter((sku, *row) for sku, row in self.today.silver.product_status_summary.items())

    def warehouse_stock_summary(self) -> Counter:
        rows = []
        for warehouse, names in self.today.warehouses.items():
            names = ("Unknown warehouse", None) if warehouse == "unknown" else names
            here = {sku: row for (sku, place), row in self.today.stock_rows.items() if place == warehouse and sku}
            space, unknown_volumes = ZERO, 0
            for sku, (_, on_hand, _, _) in here.items():
                sides = self.today.silver.products[sku][3:6]
                if on_hand > 0 and None in sides:
                    unknown_volumes += 1
                elif on_hand > 0:
                    space += sides[0] * sides[1] * sides[2] * on_hand
            in_stock = sum(row[0] > 0 for row in here.values())
            sums = [sum((row[place] for row in here.values()), ZERO) for place in range(4)]
            orphans = self.today.stock_rows.get(("", warehouse), (ZERO,))[0]
            rows.append((warehouse, *names, len(here), in_stock, *sums, orphans, rounded(space, 3), unknown_volumes))
        return Counter(rows)

    def low_stock_products(self) -> Counter:
        rows = []
        for sku, (name, kind, *_, is_active, _) in self.today.silver.products.items():
            total = self.today.totals[sku]
            threshold = self.thresholds.get(kind or "", self.thresholds["*"])
            if not is_active or total > threshold:
                continue
            since = self.today.day
            for load in reversed(self.known(self.today.day)):
                if sku in load.totals:
                    if load.totals[sku] > threshold:
                        break
                    since = load.day
            status = "Out of Stock" if total <= 0 else "Low Stock"
            rows.append((sku, name, kind, status, total, threshold, threshold - total, since))
        return Counter(rows)

    def stock_forecast(self) -> Counter:
        known = self.known(self.today.day)
        window = known[-WINDOW - 1 :]
        rows = []
        days = (window[-1].day - window[0].day).days if len(window) == WINDOW + 1 else None
        for sku, (name, kind, *_, is_active, _) in self.today.silver.products.items():
            total = self.today.totals[sku]
            stocks = [load.totals[sku] for load in window if sku in load.totals]
            average = cover = out_on = decrease = None
            if len(stocks) == WINDOW + 1:
                decrease = sum((max(before - after, ZERO) for before, after in pairwise(stocks)), ZERO)
                average = rounded(decrease / days, 4)
                if decrease > 0:
                    lasts = max(total, ZERO) * days / decrease
                    cover = rounded(lasts, 1)
                    if total > 0 and lasts <= 36500:
                        out_on = self.today.day + timedelta(days=ceil(lasts))
            status = "Active" if is_active else "Inactive"
            rows.append((sku, name, kind, total, len(stocks), average, cover, out_on, decrease, days, status))
        return Counter(rows)

    def reorder_proposals(self) -> Counter:
        rows = []
        known = self.known(self.today.day)
        window = known[-WINDOW - 1 :]
        for sku, (name, kind, *_, is_active, _) in self.today.silver.products.items():
            total = self.today.totals[sku]
            threshold = self.thresholds.get(kind or "", self.thresholds["*"])
            lead, cover = self.plan_of(kind)
            stocks = [load.totals[sku] for load in window if sku in load.totals]
            daily = lasts = None
            if len(stocks) == WINDOW + 1:
                decrease = sum((max(before - after, ZERO) for before, after in pairwise(stocks)), ZERO)
                daily = Fraction(decrease) / (window[-1].day - window[0].day).days
                lasts = max(Fraction(total), Fraction(0)) / daily if daily else None
            is_low = total <= threshold
            runs_out = lasts is not None and lasts <= lead
            if not is_active or not (is_low or runs_out):
                continue
            wanted = max(Fraction(threshold), (daily or 0) * (lead + cover))
            if not is_low:
                reason = "runs out before a delivery arrives"
            elif daily is None:
                reason = "below its threshold; less than 28 days of history"
            else:
                reason = "below its threshold"
            if total <= 0 or daily is None:
                order_by = self.today.day
            elif lasts is None or lasts > 36500:
                order_by = None
            else:
                order_by = max(self.today.day, self.today.day + timedelta(days=floor(lasts - lead)))
            shown = (None if daily is None else of_fraction(daily, 4), None if lasts is None else of_fraction(lasts, 1))
            quantity = ceil(wanted - Fraction(total))
            rows.append((sku, name, kind, total, threshold, *shown, lead, cover, quantity, reason, order_by))
        return Counter(rows)

    def plan_of(self, kind: str | None) -> tuple[int, int]:
        """Lead time and days to cover of a product type."""
        of_type, of_all = self.plans.get(kind or "", (None, None)), self.plans.get("*", (None, None))
        return tuple(
            next(days for days in choice if days is not None)
            for choice in zip(of_type, of_all, (LEAD_DAYS, COVER_DAYS), strict=True)
        )

    def slow_movers(self) -> Counter:
        rows = []
        known = self.known(self.today.day)
        window = known[-WINDOW - 1 :]
        for sku, row in self.today.silver.product_status_summary.items():
            stocks = [load.totals[sku] for load in window if sku in load.totals]
            falls = any(after < before for before, after in pairwise(stocks))
            if row[3] <= 0 or len(stocks) <= WINDOW or falls:
                continue
            all_days = [(load.day, load.totals[sku]) for load in known if sku in load.totals]
            last = [day for (_, before), (day, after) in pairwise(all_days) if after < before]
            name, kind, status, total, on_hand = row[:5]
            rows.append((sku, name, kind, status, total, on_hand, row[-1], max(last, default=None)))
        return Counter(rows)

    def quarantined_stock(self) -> Counter:
        rows = []
        for (sku, warehouse), (_, _, quarantined, _) in self.today.stock_rows.items():
            if quarantined <= 0:
                continue
            since = self.today.day
            for load in reversed(self.known(self.today.day)):
                if (sku, warehouse) in load.stock_rows:
                    if load.stock_rows[sku, warehouse][2] <= 0:
                        break
                    since = load.day
            name, kind, status = ("Unknown product", None, "Unknown")
            if sku:
                name, kind, status = self.today.silver.product_status_summary[sku][:3]
            place = "Unknown warehouse" if warehouse == "unknown" else self.today.warehouses[warehouse][0]
            days = (self.today.day - since).days
            rows.append((sku, name, kind, status, warehouse, place, quarantined, since, days))
        return Counter(rows)

    def load_status(self) -> Counter:
        """Expected without runs in the history; other tests cover runs."""
        sentence = f"gold holds {self.today.day}; no run has ended yet"
        return Counter([(self.today.day, None, None, None, None, None, sentence)])

    # ---- questions about days ---------------------------------------------------------------------------------------

    def stock_movements(self) -> Counter:
        loads = self.known()
        rows = [
            (loads[0].day, sku, self.names_on(loads[0].day, sku), None, None, total)
            for sku, total in loads[0].totals.items()
        ]
        for before, after in pairwise(loads):
            for sku in before.totals.keys() | after.totals.keys():
                opening, closing = before.totals.get(sku, ZERO), after.totals.get(sku, ZERO)
                if opening != closing:
                    rows.append((after.day, sku, self.names_on(after.day, sku), opening, closing - opening, closing))
        return Counter(rows)

    def status_changes(self) -> Counter:
        rows, last = [], {}
        for load in self.known():
            for sku, status in load.statuses.items():
                if last.get(sku, status) != status:
                    rows.append((load.day, sku, self.names_on(load.day, sku), last[sku], status, load.totals[sku]))
                last[sku] = status
        return Counter(rows)

    def data_quality_summary(self) -> Counter:
        rules = {(issue[0], issue[4], issue[5]) for load in self.known() for issue in load.silver.issues}
        earlier = [load for load in self.known() if load.day < self.today.day]
        rows = []
        for rule, severity, job in rules:
            issues = [issue for issue in self.today.silver.issues if issue[0] == rule]
            keys = [issue[1] for issue in issues]
            before = sum(issue[0] == rule for issue in earlier[-1].silver.issues) if earlier else None
            loaded = len(self.today.products if job == "products" else self.today.stock)
            share = rounded(Decimal(len(keys)) / loaded, 4) if loaded else ZERO
            # all issues of a product concern the same pieces
            concerned = (
                {issue[1]: issue[8] for issue in issues}.values() if job == "products" else [i[8] for i in issues]
            )
            known = [pieces for pieces in concerned if pieces is not None]
            pieces = sum(known, ZERO) if known or not issues else None
            rows.append((rule, severity, job, len(keys), before, share, min(keys, default=None), pieces))
        return Counter(rows)
