"""Ctrl-C, SIGTERM and SIGHUP: the work runs in a thread, and so does what cancels its statements.

Python cannot run a signal handler while the main thread is inside the driver's execute or COPY. Therefore the main
thread never calls the driver.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from lib.errors import Cancelled, EltError, OutOfTime, limit_reached

Result = TypeVar("Result")

#: seconds between two cancel requests; they are repeated because one that arrives between two statements has no effect
CANCEL_EVERY = 0.2
#: seconds within which a further signal is the same stop: a terminal and the program that started this one both send it
SAME_STOP = 0.3


class StopSignal:
    """Whether a stop was requested, and the functions that interrupt work which is running now."""

    def __init__(self) -> None:
        self._requested = threading.Event()
        self._signal: int = signal.SIGINT
        self._watched: list[Callable[[], None]] = []
        self._first_signal: float | None = None
        #: whether a second signal asked not to wait for the work
        self.at_once = False

    @property
    def requested(self) -> bool:
        return self._requested.is_set()

    def request(self, signal_number: int = signal.SIGINT) -> None:
        self._signal = signal_number
        self._requested.set()

    def on_signal(self, number: int, _frame: object) -> None:
        """Handles SIGINT, SIGTERM and SIGHUP; a third signal kills the process."""
        now = time.monotonic()
        if self._first_signal is None:
            self._first_signal = now
            self.request(number)
        elif now - self._first_signal > SAME_STOP:
            signal.signal(number, signal.SIG_DFL)
            self.at_once = True

    def raise_if_requested(self) -> None:
        """Raises Cancelled once a stop was requested."""
        if self.requested:
            raise Cancelled(self._signal)

    def cause_of(self, error: EltError) -> EltError:
        """Cancelled if a stop was requested (a stop makes any statement fail), else the error itself."""
        return Cancelled(self._signal) if self.requested else error

    def wait(self, seconds: float) -> None:
        """Wait, or return early when a stop is requested."""
        self._requested.wait(seconds)

    def pause(self, seconds: float) -> None:
        """Wait; raises Cancelled as soon as a stop is requested. Every wait of a run uses this method."""
        self._requested.wait(seconds)
        self.raise_if_requested()

    def watch(self, cancel: Callable[[], None]) -> None:
        """Register `cancel`: on a stop it is called, repeatedly, until the work has ended."""
        self._watched.append(cancel)

    def forget(self, cancel: Callable[[], None]) -> None:
        """Unregister `cancel`, so that clean-up work is not interrupted."""
        if cancel in self._watched:
            self._watched.remove(cancel)

    def interrupt(self) -> None:
        """Call every registered cancel function."""
        for cancel in list(self._watched):
            cancel()


class TimeLimit:
    """A limit for all waits of one task, while `holds`. `over` is what its error says; `clock` counts in seconds."""

    def __init__(self, stop: StopSignal, seconds: float, over: str, clock: Callable[[], float]) -> None:
        self._stop, self._over, self._clock = stop, over, clock
        self._end = clock() + seconds
        self.holds = False

    def pause(self, seconds: float) -> None:
        """As StopSignal.pause; raises OutOfTime if the time was over before."""
        left = self._end - self._clock()
        if self.holds and left <= 0:
            raise OutOfTime(self._over)
        self._stop.pause(min(seconds, left) if self.holds else seconds)


def start_thread(work: Callable[[], Result], name: str) -> Future[Result]:
    """Run work in a daemon thread: a request to an HTTP server that does not answer must not delay the exit.

    Raises LimitReached if no thread can be started.
    """
    future: Future[Result] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:  # future.result() raises it in the waiting thread
            future.set_exception(limit_reached(error) or error)

    try:
        threading.Thread(target=run, name=name, daemon=True).start()
    except RuntimeError as error:
        raise limit_reached(error) or error from None
    return future


def run_stoppable(work: Callable[[], Result], stop: StopSignal) -> Result:
    """Run work in a thread and request a stop on SIGINT, SIGTERM or SIGHUP.

    A SIGHUP that was ignored at the start (by nohup) stays ignored. Raises what work raises; at a second signal
    Cancelled at once, while work may still run. A third one kills the process. Outside the main thread, which receives
    no signals, it only calls work.
    """
    if threading.current_thread() is not threading.main_thread():
        return work()

    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    before = {number: signal.signal(number, stop.on_signal) for number in numbers}
    cancelling: Future[None] | None = None
    try:
        future = start_thread(work, "run")
        while True:
            try:
                return future.result(timeout=CANCEL_EVERY)
            except TimeoutError:
                if future.done():
                    return future.result()
                if stop.at_once:
                    stop.raise_if_requested()
                if stop.requested and (cancelling is None or cancelling.done()):
                    cancelling = start_thread(stop.interrupt, "cancel")
    except EltError as error:
        raise stop.cause_of(error) from error
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
