"""Ctrl-C and SIGTERM: the work runs in a thread, the main thread listens and cancels what the thread waits for.

A signal handler cannot run while the main thread is inside the driver's execute or COPY, so the driver never runs
there.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from lib.errors import Cancelled, EltError

Result = TypeVar("Result")

#: seconds between two cancel requests: one may fall between two statements, where it cancels nothing
CANCEL_EVERY = 0.2


class StopSignal:
    """Whether this run was told to stop, and what must be interrupted for it to notice."""

    def __init__(self) -> None:
        self._requested = threading.Event()
        self._signal: int = signal.SIGINT
        self._watched: list[Callable[[], None]] = []

    @property
    def requested(self) -> bool:
        return self._requested.is_set()

    def request(self, signal_number: int = signal.SIGINT) -> None:
        self._signal = signal_number
        self._requested.set()

    def raise_if_requested(self) -> None:
        """Raises Cancelled once a stop was requested."""
        if self.requested:
            raise Cancelled(self._signal)

    def cause_of(self, error: EltError) -> EltError:
        """Why work ended with this error: a stop, once there was one, for it makes statements fail anywhere."""
        return Cancelled(self._signal) if self.requested else error

    def wait(self, seconds: float) -> None:
        """Wait; a stop ends it early."""
        self._requested.wait(seconds)

    def pause(self, seconds: float) -> None:
        """Wait; raises Cancelled as soon as a stop is requested. Every wait of a run goes through here."""
        self._requested.wait(seconds)
        self.raise_if_requested()

    def watch(self, cancel: Callable[[], None]) -> None:
        """Call `cancel` on a stop, and again until the work has ended."""
        self._watched.append(cancel)

    def forget(self, cancel: Callable[[], None]) -> None:
        """Leave this one alone from now on: it cleans up."""
        if cancel in self._watched:
            self._watched.remove(cancel)

    def interrupt(self) -> None:
        """Cancel whatever is watched now."""
        for cancel in list(self._watched):
            cancel()


def start_thread(work: Callable[[], Result], name: str) -> Future[Result]:
    """Run work in a thread that never keeps the process alive: a dead HTTP peer must not delay an exit."""
    future: Future[Result] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:  # the future hands it, whatever it is, to who waits
            future.set_exception(error)

    threading.Thread(target=run, name=name, daemon=True).start()
    return future


def run_stoppable(work: Callable[[], Result], stop: StopSignal) -> Result:
    """Run work in a thread and request a stop on SIGINT or SIGTERM; a second signal ends the process at once.

    Raises what work raises. Called outside the main thread, where no signal arrives, it only runs work.
    """
    if threading.current_thread() is not threading.main_thread():
        return work()

    def on_signal(number: int, _frame: object) -> None:
        signal.signal(number, signal.SIG_DFL)
        stop.request(number)

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        future = start_thread(work, "run")
        while True:
            try:
                return future.result(timeout=CANCEL_EVERY)
            except TimeoutError:
                if future.done():
                    return future.result()
                if stop.requested:
                    stop.interrupt()
    except EltError as error:
        raise stop.cause_of(error) from error
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
