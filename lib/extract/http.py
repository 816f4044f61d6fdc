"""HTTP for the extractors: limits, retries with pauses, and error messages without URLs.

This module decides what an answer may take, when a request is sent again and how a network failure is worded. It
contains no Keboola path and nothing about a cloud. A URL may be presigned and a header holds a token, so neither is
ever part of a message, an exception or a log line.
"""

from __future__ import annotations

import io
import json
import logging
import os
import random
import re
import socket
import ssl
from collections.abc import Callable, Mapping
from concurrent.futures import Future, wait
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import partial
from typing import TypeVar
from urllib.parse import urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter

from lib.errors import ExtractError, limit_reached
from lib.stop import start_thread

#: what sending a request or reading its answer raises; never show their texts, which contain whole URLs
NETWORK_ERRORS = (requests.RequestException, urllib3.exceptions.HTTPError, OSError)
#: 408, 409 and 423: what was asked for is in use for a moment (docs/keboola.md 8.3)
TRANSIENT_STATUSES = frozenset({408, 409, 423, 429, 500, 502, 503, 504})
#: seconds to connect, and between two bytes of an answer
TIMEOUT = (10.0, 60.0)
#: the most tries of one request, and the seconds after which it is not tried again
RETRY_TRIES = 6
RETRY_SECONDS = 900.0
#: the most tries while a person waits for the answer: about 3 s if nobody listens there
FEW_TRIES = 3
#: seconds before the second try; doubles up to the highest
FIRST_DELAY = 1.0
HIGHEST_DELAY = 30.0
#: the longest Retry-After that is obeyed, in seconds; announced maintenance has its own limit (docs/keboola.md 8.3)
LONGEST_RETRY_AFTER = 300.0
#: the longest announced maintenance that is waited out, in seconds
LONGEST_MAINTENANCE = 4 * 3600.0
#: seconds between two checks whether a stop was requested
STOP_EVERY = 0.2
#: the last second that a date can show, in epoch seconds
LATEST = 253_402_300_799.0
#: seconds that a thread may take to notice that its connection was ended
HANG_UP_WITHIN = 2.0
#: bytes per read of an answer that is read whole, and the most that is read of an error's body
BLOCK = 64 * 1024
LONGEST_ERROR = 1024 * 1024
#: characters of a server's text that a message repeats
LONGEST_WORDS = 2000
CUT = "the connection was cut"
#: a wait of at least this many seconds is reported
WORTH_A_LINE = 10.0

_QUERY = re.compile(r"\?\S+=\S*")
_XML_CODE = re.compile(r"<Code>(\w+)</Code>")
#: what a proxy's URL that cannot be used raises
_BAD_PROXY = (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema, urllib3.exceptions.URLSchemeUnknown)
_PROXY_VARIABLES = ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY")
_LOOPBACK = re.compile(r"localhost|::1|127(\.\d+){3}")

# urllib3 writes whole URLs, including presigned ones, into its warnings and debug lines
logging.getLogger("urllib3").setLevel(logging.ERROR)

Auth = Callable[[requests.PreparedRequest], requests.PreparedRequest]
Kind = TypeVar("Kind", bound=BaseException)
Result = TypeVar("Result")


def no_auth(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Adds no authentication. Without it, requests would use an entry of ~/.netrc (docs/keboola.md 6.3)."""
    return request


@dataclass(frozen=True)
class Limits:
    """What one answer may take. Tests use smaller ones."""

    #: from the request to the last byte of an answer that is read whole; to the end of the headers if it is a stream
    seconds: float = 300.0
    #: of an answer that is read whole, after unpacking
    size: int = 64 * 1024 * 1024
    #: bytes a second, stored ones for a slice. Each block must come this fast: 64 KB in a minute, 256 KB in four.
    least_speed: float = 1024.0


class LimitError(OSError):
    """An answer passed a limit. Its text may be shown. again: whether another try may help."""

    def __init__(self, text: str, *, again: bool = True) -> None:
        super().__init__(text)
        self.again = again


@dataclass(frozen=True)
class Call:
    """One request. `subject` says in messages what it is for."""

    subject: str
    url: str = field(repr=False)
    method: str = "GET"
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    auth: Auth = field(default=no_auth, repr=False)
    body: object = None
    stream: bool = False
    tries: int = RETRY_TRIES
    #: what to do if the server cannot be reached
    remedy: str = "This machine must be allowed to reach that host."

    @property
    def host(self) -> str:
        return urlsplit(self.url).netloc.rpartition("@")[2]


class Http:
    """Sends calls. May be used from several threads.

    patient False: a person waits and no rows are loaded, so few tries and no word about loaded rows.
    """

    def __init__(
        self,
        *,
        pause: Callable[[float], None],
        clock: Callable[[], float],
        now: Callable[[], float],
        report: Callable[[str], None],
        connections: int,
        secret: str,
        timeout: tuple[float, float] = TIMEOUT,
        limits: Limits = Limits(),
        patient: bool = True,
    ) -> None:
        self.pause, self.clock, self.now, self.report, self.patient = pause, clock, now, report, patient
        self._secret, self._timeout, self._limits = secret, timeout, limits
        # urllib3's pools are thread-safe, a requests.Session is not. So all calls share one pool, and each has its own
        # session. As a side effect, no cookie is sent with a later call.
        self._adapter = HTTPAdapter(pool_maxsize=connections)

    def send(self, call: Call) -> requests.Response:
        """Return the first answer without a transient status. It may be an error or a redirect, which is not followed.

        Its body is read already, unless the call asks for a stream and the answer is no error.
        Raises ExtractError when the tries or the time are used up, or if the answer is too large; LimitReached.
        """
        retries = Retries(self, call.subject, call.tries)
        while True:
            try:
                response = self._send_once(call)
            except NETWORK_ERRORS as error:
                # another try would only fail later
                if limit := limit_reached(_cause(error, OSError) or error):
                    raise limit from None
                what = "stopped reading the answer of" if isinstance(error, LimitError) else "no answer from"
                why = f"{what} {call.host}: {self.reason_of(error)}"
                failure = Failure(why, retry=is_transient(error), remedy=call.remedy + _proxy_words(call.url))
            else:
                if response.status_code not in TRANSIENT_STATUSES:
                    return response
                failure = self._read_failure(response)
            retries.wait(failure)

    def read(self, response: requests.Response, size: int, *, unpack: bool = False) -> bytes:
        """The next `size` bytes of a body; fewer only at its end.

        Raises one of NETWORK_ERRORS, LimitError if the bytes come slower than the least speed. Close the answer then.
        """

        def hang_up(reading: Future[bytes]) -> None:
            with suppress(ValueError, RuntimeError, OSError):  # it has come to its end just now
                response.raw.shutdown()
            wait([reading], timeout=HANG_UP_WITHIN)  # nobody may close an answer that is being read

        self.pause(0.0)
        least = self._limits.least_speed
        seconds = max(size, BLOCK) / least
        slow = f"less than {least:,.0f} bytes a second for {seconds:.0f} s"
        return self._within(seconds, slow, lambda: response.raw.read(size, decode_content=unpack), hang_up)

    def _within(
        self, seconds: float, slow: str, work: Callable[[], Result], hang_up: Callable[[Future[Result]], None]
    ) -> Result:
        """Work in a separate thread: neither a stop nor the limit then waits for a server that does not go on.

        hang_up: called with work that is given up.
        """
        began = self.clock()
        answer = start_thread(work, "HTTP")
        try:
            while not wait([answer], timeout=STOP_EVERY).done:
                self.pause(0.0)
                if self.clock() - began > seconds:
                    raise LimitError(slow)
        except BaseException:
            hang_up(answer)
            raise
        return answer.result()

    def _send_once(self, call: Call) -> requests.Response:
        began, slow = self.clock(), f"not complete after {self._limits.seconds:g} s"
        # headers cannot be given up: their thread ends with the connection, at the latest with the process
        response = self._within(
            self._limits.seconds, slow, partial(self._ask, call), lambda late: late.add_done_callback(_close_late)
        )
        # servers that name no encoding would otherwise make requests guess one, which takes long for a large answer
        response.encoding = response.encoding or "utf-8"
        if call.stream and response.status_code < 300:
            return response
        body = bytearray()
        try:
            while data := self.read(response, BLOCK, unpack=True):
                body += data
                if len(body) > LONGEST_ERROR and not response.ok:
                    break
                if len(body) > self._limits.size:
                    text = f"it has more than {self._limits.size / 1024 / 1024:g} MB after unpacking"
                    raise LimitError(text, again=False)
                if self.clock() - began > self._limits.seconds:
                    raise LimitError(slow)
        finally:
            response.close()
        response.raw = io.BytesIO(body)
        return response

    def _ask(self, call: Call) -> requests.Response:
        """The answer with its headers; its body is not read yet."""
        session = requests.Session()
        session.mount("https://", self._adapter)
        session.mount("http://", self._adapter)
        host = urlsplit(call.url).hostname or ""
        return session.request(
            call.method,
            call.url,
            headers={"User-Agent": "keboola-postgres-elt", "Accept-Encoding": "gzip", **call.headers},
            auth=call.auth,
            json=call.body,
            stream=True,
            timeout=self._timeout,
            allow_redirects=False,
            # use a proxy from the environment, except for requests to this machine
            proxies={"no_proxy": host} if is_here(call.url) else None,
        )

    def reason_of(self, error: BaseException) -> str:
        """Describe a network error in our own words: the error's own text may contain a URL."""
        if isinstance(error, LimitError):
            return str(error)
        if isinstance(error, requests.exceptions.ProxyError):
            return f"the proxy that {_proxy_variable()} names did not forward the request{_proxy_reason(error)}"
        if isinstance(error, (requests.ConnectTimeout, urllib3.exceptions.ConnectTimeoutError)):
            return f"no connection within {self._timeout[0]:g} s"
        if isinstance(error, (requests.Timeout, urllib3.exceptions.TimeoutError)) or _cause(error, TimeoutError):
            return f"no data came for {self._timeout[1]:g} s"
        if known := _system_reason(error):
            return known
        if isinstance(error, (requests.ConnectionError, urllib3.exceptions.ProtocolError)):
            return CUT
        if "CA certificate bundle" in str(error):
            return "the file that REQUESTS_CA_BUNDLE names is not there"
        if isinstance(error, urllib3.exceptions.DecodeError):
            return "its gzip data are damaged"
        if isinstance(error, _BAD_PROXY):
            return f"{_proxy_variable()} must look like http://host:port"
        return "the request cannot be sent"

    def words_of(self, response: requests.Response) -> str:
        """The error in an answer: Keboola's message, code and exceptionId (docs/keboola.md 8.1), or a store's code.

        From a store's XML only the code is taken, because the rest may repeat the signed request.
        """
        said = f"HTTP {response.status_code}"
        body = json_of(response)
        error = body.get("error")
        message = error.get("message") if isinstance(error, dict) else error
        if message:
            return self.scrub(f"{said} {message}{handle_of(body)}")
        code = _XML_CODE.search(text_of(response)[:2000])
        if code and code[1] == "RequestTimeTooSkewed":
            return f"{said} {code[1]}: {self._clock_words(response.headers.get('Date'))}"
        return f"{said} {code[1]}" if code else said

    def _clock_words(self, date: str | None) -> str:
        """What to do about this machine's clock, by which a request to S3 is signed. date: when the store answered."""
        ours = datetime.fromtimestamp(self.now(), UTC)
        theirs = ""
        with suppress(TypeError, ValueError):
            theirs = f", the store says {parsedate_to_datetime(date or '').astimezone(UTC):%Y-%m-%d %H:%M UTC}"
        return f"this machine's clock says {ours:%Y-%m-%d %H:%M UTC}{theirs}; set this machine's clock"

    def scrub(self, text: str) -> str:
        """Text from a server, without our secret and without the query part of URLs, and not too long for a message."""
        return _QUERY.sub("?...", text.replace(self._secret, "***")[:LONGEST_WORDS])

    def _read_failure(self, response: requests.Response) -> Failure:
        """The Failure for an answer with a transient status, including when the server wants the next try."""
        body = json_of(response)
        after = retry_after(response.headers.get("Retry-After"), self.now())
        if response.status_code == 503 and body.get("status") == "maintenance":
            end = parse_time(body.get("estimatedEndTime"))
            until = min(end if end is not None else self.now() + (after or 60.0), LATEST)
            why = self.scrub(f"maintenance: {body.get('reason') or 'no reason given'}")
            return Failure(why, after=after, maintenance=until)
        return Failure(self.words_of(response), after=after)


@dataclass(frozen=True)
class Failure:
    """Why a try failed."""

    why: str
    #: seconds that the server asks us to wait before the next try
    after: float | None = None
    #: epoch seconds at which an announced maintenance ends
    maintenance: float | None = None
    retry: bool = True
    #: what to do if it lasts
    remedy: str = ""


class Retries:
    """Counts the failed tries of one task and pauses between them, within the limits above."""

    def __init__(self, http: Http, subject: str, tries: int = RETRY_TRIES) -> None:
        self._http, self._subject, self._tries = http, subject, tries if http.patient else min(tries, FEW_TRIES)
        self._began = http.clock()
        self.reset()

    def reset(self) -> None:
        """Call after progress: earlier failures then no longer count."""
        self._failed = 0

    def wait(self, failure: Failure) -> None:
        """Pause before the next try. Raises ExtractError if no try is left, and whatever the pause raises."""
        if failure.maintenance is not None and failure.maintenance > self._http.now():
            self._wait_out(failure, failure.maintenance)
            return
        stay = " The rows loaded before stay." if self._http.patient else ""
        todo = f"\n    {failure.remedy}{stay}" if failure.remedy else ""
        if not failure.retry:
            raise ExtractError(f"{self._subject}: {failure.why}{todo}")
        if self._failed == 0:
            self._since = self._http.clock()
        self._failed += 1
        spent = self._http.clock() - self._since
        delay = min(FIRST_DELAY * 2 ** (self._failed - 1), HIGHEST_DELAY) * random.uniform(0.75, 1.25)
        if failure.after is not None:
            delay = max(delay, min(failure.after, LONGEST_RETRY_AFTER))
        if self._failed >= self._tries or spent + delay > RETRY_SECONDS:
            tried = f"gave up after {self._failed} tries in {spent:.0f} s"
            raise ExtractError(f"{self._subject}: {failure.why}; {tried}{todo}")
        if delay >= WORTH_A_LINE:
            self._http.report(f"{self._subject}: {failure.why}; trying again in {delay:.0f} s")
        self._http.pause(delay)

    def _wait_out(self, failure: Failure, end: float) -> None:
        """Announced maintenance: report it and try again every minute, because the announced end may change."""
        left = end - self._http.now()
        until = datetime.fromtimestamp(end, UTC).strftime("%Y-%m-%d %H:%M UTC")
        if left + self._http.clock() - self._began > LONGEST_MAINTENANCE:
            raise ExtractError(f"{self._subject}: {failure.why}, until {until}; run again after that")
        self._http.report(f"{self._subject}: {failure.why}, until {until}; waiting")
        self._http.pause(min(left, 60.0))
        self.reset()


def is_transient(error: BaseException) -> bool:
    """Whether the same request may succeed later. A refused certificate, an invalid URL or header is permanent."""
    if isinstance(error, LimitError):
        return error.again
    return not isinstance(error, ValueError) and not _cause(error, ssl.SSLCertVerificationError)


def _system_reason(error: BaseException) -> str:
    """What the operating system, DNS or TLS says about a connection; empty if they are not the cause."""
    if certificate := _cause(error, ssl.SSLCertVerificationError):
        return (
            f"the server's TLS certificate is refused: {certificate.verify_message} (where a company reads TLS on"
            " the way: REQUESTS_CA_BUNDLE must name the file with its certificate)"
        )
    if tls := _cause(error, ssl.SSLError):
        return f"no TLS connection: {(tls.reason or 'no reason given').lower().replace('_', ' ')}"
    if name := _cause(error, socket.gaierror):
        return f"DNS gives no address for this name ({(name.strerror or 'no reason given').lower()})"
    if (cause := _cause(error, OSError)) and cause.strerror:
        return cause.strerror.lower()
    return ""


def _proxy_variable() -> str:
    """The name of the variable with the proxy, as requests reads it. Its value may hold a password."""
    return next((name for name in _PROXY_VARIABLES if os.environ.get(name)), "the system")


def is_here(url: str) -> bool:
    """Whether a URL is one of this machine itself."""
    return bool(_LOOPBACK.fullmatch(urlsplit(url).hostname or ""))


def _proxy_words(url: str) -> str:
    """Which way requests to this URL take; empty for this machine itself."""
    if is_here(url):
        return ""
    if requests.utils.select_proxy(url, requests.utils.get_environ_proxies(url)):
        return f" Requests to it go through the proxy that {_proxy_variable()} names."
    return " Requests to it use no proxy: if one is needed, HTTPS_PROXY must name it."


def _proxy_reason(error: BaseException) -> str:
    """What a proxy answered, or why there was no answer."""
    cause = _cause(error, OSError)
    if status := re.search(r"Tunnel connection failed: (\d+)", str(cause)):
        user = "; it asks for a user: http://user:password@host:port" if status[1] == "407" else ""
        return f": HTTP {status[1]}{user}"
    return f": {cause.strerror.lower()}" if cause and cause.strerror else ""


def _cause(error: BaseException | None, kind: type[Kind]) -> Kind | None:
    """The innermost exception of this kind in the chain of causes of `error`; exceptions of requests are skipped."""
    found: Kind | None = None
    while error is not None:
        if isinstance(error, kind) and not isinstance(error, requests.RequestException):
            found = error
        error = error.__cause__ or error.__context__
    return found


def _close_late(answer: Future[requests.Response]) -> None:
    if answer.exception() is None:
        answer.result().close()


def text_of(response: requests.Response) -> str:
    """The body, or an empty text if it cannot be read. Raises LimitReached, because requests may open files for it."""
    try:
        return response.text
    except NETWORK_ERRORS as error:
        if limit := limit_reached(error):
            raise limit from None
        return ""


def json_of(response: requests.Response) -> dict[str, object]:
    """The JSON object in a body, or an empty one."""
    body = parsed(response)
    return body if isinstance(body, dict) else {}


def parsed(response: requests.Response) -> object:
    """The JSON in a body, or None. JSON may hold half of a surrogate pair, which no encoding has: it becomes a `?`."""
    with suppress(ValueError, RecursionError):
        body: object = json.loads(text_of(response))
        return json.loads(json.dumps(body, ensure_ascii=False).encode(errors="replace"))
    return None


def handle_of(error: Mapping[str, object]) -> str:
    """` (code, exceptionId)` as Keboola's support asks for, or what there is of it."""
    code, exception_id = error.get("code"), error.get("exceptionId")
    details = [str(code)] if code else []
    details += [f"exceptionId {exception_id}"] if exception_id else []
    return f" ({', '.join(details)})" if details else ""


def retry_after(header: str | None, now: float) -> float | None:
    """The seconds to wait according to a Retry-After header, which holds seconds or a date (RFC 9110, 10.2.3)."""
    if header is None:
        return None
    if header.strip().isdecimal():
        return float(header)
    with suppress(ValueError):
        return max(0.0, parsedate_to_datetime(header).timestamp() - now)
    return None


def parse_moment(text: object) -> datetime | None:
    """A time in any of Keboola's formats, in UTC (docs/keboola.md 2.1). Without an offset it is UTC.

    None if it is something else, or out of the range of a datetime."""
    if not isinstance(text, str):
        return None
    with suppress(ValueError, OverflowError):
        time = datetime.fromisoformat(text)
        return (time if time.tzinfo else time.replace(tzinfo=UTC)).astimezone(UTC)
    return None


def parse_time(text: object) -> float | None:
    """Epoch seconds of such a time."""
    moment = parse_moment(text)
    return None if moment is None else moment.timestamp()
