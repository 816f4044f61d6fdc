"""Faults that tests inject into the sandbox: at which request, at which occurrence, and what happens then.

keboola.faults.add(Fault("slice", "cut", at=0.5, nth=2))       # the second slice is cut in its middle
keboola.faults.add(Fault("*", "status", nth=None, share=0.05)) # 5 % of all requests get 503
keboola.faults.add(Fault("file", do=keboola.expire_credentials))
keboola.faults.add(Fault("file", do=lambda: keboola.delete_table("in.c-shop.orders")))
"""

from __future__ import annotations

import gzip
import random
import threading
from collections.abc import Callable
from dataclasses import dataclass

from sandbox.messages import Response

#: the body of a maintenance answer; it goes with status 503 and Retry-After (docs/keboola.md 8.1)
MAINTENANCE = '{"status":"maintenance","estimatedEndTime":"2030-01-01T04:00:00+01:00","reason":"Sandbox upgrade"}'
ACTIONS = ("pass", "status", "cut", "stall", "truncate", "length", "corrupt", "gunzip", "whole", "job")


@dataclass(frozen=True)
class Fault:
    """One fault. The actions:

    - `pass`: only call `do`.
    - `status`: answer `status` with `body`, and with `retry_after` (seconds or an HTTP date) and `location` as headers.
      Without a body: the error that the API or the cloud would send.
    - `cut`: close the connection at `at`.
    - `stall`: wait at `at` until released, then continue.
    - `truncate`: end the body at `at`, with a Content-Length that matches.
    - `corrupt`: invert the byte at `at`.
    - `length`: announce `at` bytes more than there are.
    - `whole`: ignore the request's Range header.
    - `gunzip`: send the body decompressed under its old name, as GCS may.
    - `job`: the export's job ends with status `outcome`: error, cancelled, terminated or an unknown one. With
      "processing" it never ends.

    `at` as an int is a number of body bytes, counted from the end if negative. As a float it is a share of the body.
    None means before the first byte of the response.
    """

    #: a request's kind (see `LoggedRequest.kind`), or "*"
    match: str
    action: str = "pass"
    #: which of the matching requests since the fault was added, counted from 1; None: each
    nth: int | None = 1
    #: only requests whose path contains this
    path: str = ""
    #: the share of the selected requests that get the fault, at random with this seed
    share: float = 1.0
    seed: int = 0
    status: int = 503
    retry_after: str = ""
    location: str = ""
    body: str = ""
    at: int | float | None = 0
    outcome: str = "error"
    #: called before the request is answered, with every action
    do: Callable[[], None] | None = None

    def __post_init__(self) -> None:
        if self.action not in ACTIONS:
            raise ValueError(f"action is one of {', '.join(ACTIONS)}, not {self.action}")

    def place(self, length: int) -> int:
        """The position of `at` in a body of this length, in bytes."""
        if isinstance(self.at, float):
            return int(length * self.at)
        place = self.at or 0
        return max(0, length + place) if place < 0 else min(place, length)


class Faults:
    """The faults of one server."""

    def __init__(self) -> None:
        self._faults: list[tuple[Fault, random.Random, list[None]]] = []
        self._lock = threading.Lock()
        self._released = threading.Event()
        #: set once a response stalls
        self.stalled = threading.Event()

    def add(self, fault: Fault) -> None:
        with self._lock:
            self._faults.append((fault, random.Random(fault.seed), []))

    def clear(self) -> None:
        """Remove all faults. Responses that are stalled stay stalled."""
        with self._lock:
            self._faults.clear()

    def pick(self, kind: str, path: str) -> Fault | None:
        """The first fault that applies to this request, or None. Every fault that the request matches counts it."""
        due = None
        with self._lock:
            for fault, dice, seen in self._faults:
                if fault.match not in ("*", kind) or fault.path not in path:
                    continue
                seen.append(None)
                hit = fault.nth in (None, len(seen)) and dice.random() < fault.share
                due = due or (fault if hit else None)
        return due

    def release(self) -> None:
        """Let every stalled response continue, including later ones."""
        self._released.set()

    def stall(self) -> None:
        """Wait for `release`."""
        self.stalled.set()
        self._released.wait()


def spoil(response: Response, fault: Fault) -> Response:
    """The response after the fault is applied."""
    place = fault.place(response.length)
    if fault.action == "cut":
        response.cut_at = -1 if fault.at is None else place
    elif fault.action == "stall":
        response.stall_at = -1 if fault.at is None else place
    elif fault.action == "length":
        response.headers["Content-Length"] = str(response.length + place)
        response.cut_at = response.length
    elif fault.action == "truncate":
        response.data, response.length = response.data[:place], place
        response.headers["Content-Length"] = str(place)
    elif fault.action == "corrupt":
        data = bytearray(response.body(0, response.length))
        data[min(place, len(data) - 1)] ^= 0xFF
        return Response(response.status, response.headers, bytes(data))
    elif fault.action == "gunzip":
        plain = gzip.decompress(response.body(0, response.length))
        return Response(response.status, {**response.headers, "Content-Length": str(len(plain))}, plain)
    return response
