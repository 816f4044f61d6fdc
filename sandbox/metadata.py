"""Metadata that clients write: keys and values of a branch, a bucket, a table or a column."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping

from sandbox.store_access import Clock
from sandbox.tables import api_time


class Metadata:
    """Entries by owner: `branch`, `in.c-shop`, `in.c-shop.orders` or `in.c-shop.orders.id`.

    A key of a provider has one value: a new one takes the old one's place.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._ids = itertools.count(9001)
        self._entries: dict[str, list[dict[str, object]]] = {}

    def of(self, owner: str) -> list[dict[str, object]]:
        """The entries in the form of the API."""
        return list(self._entries.get(owner, ()))

    def post(self, owner: str, provider: str, items: Iterable[Mapping[str, object]]) -> None:
        """Add items with `key` and `value`. Raises KeyError for an item that lacks one."""
        for item in items:
            key = str(item["key"])
            kept = [old for old in self.of(owner) if (old["key"], old["provider"]) != (key, provider)]
            entry: dict[str, object] = {"id": str(next(self._ids)), "key": key, "value": str(item["value"])}
            entry |= {"provider": provider, "timestamp": api_time(self._clock())}
            self._entries[owner] = [*kept, entry]

    def delete(self, owner: str, entry_id: str) -> bool:
        """Delete one entry. Returns whether there was one."""
        before = self.of(owner)
        self._entries[owner] = [entry for entry in before if entry["id"] != entry_id]
        return len(self._entries[owner]) < len(before)
