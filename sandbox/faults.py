"""What goes wrong, as data: at which request, which time, and what happens then.

keboola.faults.add(Fault("slice", "cut", at=0.5, nth=2))       # the second slice breaks off in its middle
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

    - `pass`: nothing but `do`.
    - `status`: answer `status` with `body`, and with `retry_after` (seconds or an HTTP date) and `location` as headers;
      without a body, the error that the API or the cloud would send.
    - `cut`: close the connection after `at`. `stall`: wait at `at` until released, then go on. `truncate`: end the body
      at `at` with a Content-Length that fits. `corrupt`: turn the byte at `at` over.
    - `length`: promise `at` bytes more than there are. `whole`: ignore the request's Range. `gunzip`: send the body
      decompressed under its old name, as GCS may.
    - `job`: the export's job ends as `outcome`: error, cancelled, terminated, anything unknown; "processing" never
      ends.

    `at` is a number of body bytes (from the end where negative), a float the share of the body; None is before the
    first byte of the response.
    """

    #: a request's kind (see `LoggedRequest.kind`), or "*"
    match: str
    action: str = "pass"
    #: which of the matching requests since the fault was added, counted from 1; None: each
    nth: int | None = 1
    #: only requests whose path holds this
    path: str = ""
    #: of the requests that are due, the share that is hit, by dice with this seed
    share: float = 1.0
    seed: int = 0
    status: int = 503
    retry_after: str = ""
    location: str = ""
    body: str = ""
    at: int | float | None = 0
    outcome: str = "error"
    #: done before the request is answered, whatever the action
    do: Callable[[], None] | None = None

    def __post_init__(self) -> None:
        if self.action not in ACTIONS:
            raise ValueError(f"action is one of {', '.join(ACTIONS)}, not {self.action}")

    def place(self, length: int) -> int:
        """`at` in a body of this length."""
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
        """From now on all is well; what stalls goes on stalling."""
        with self._lock:
            self._faults.clear()

    def pick(self, kind: str, path: str) -> Fault | None:
        """The first fault that is due for this request; each fault that it matches counts it."""
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
        """Let every stalled response go on, those to come too."""
        self._released.set()

    def stall(self) -> None:
        """Wait for `release`."""
        self.stalled.set()
        self._released.wait()


def spoil(response: Response, fault: Fault) -> Response:
    """The response as the fault leaves it."""
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
