"""TCP proxies in front of a test's PostgreSQL: one cuts a connection at a statement, one cuts those that are idle."""

from __future__ import annotations

import select
import socket
import struct
import threading
from collections.abc import Callable
from contextlib import suppress

from tests.support.databases import EmptyDatabase


class PostgresProxy:
    """Cuts once. Use as a context manager.

    `at`: the statement at which to cut begins with this, once the same connection has sent `after`.
    `how`: "before": the statement is not forwarded. "answered": it is forwarded, and its answer is swallowed.
    "at once": it is forwarded, and the client is cut without waiting for the answer.
    `then` is called right after the cut, and no further connection is taken before it has returned; with `deaf` none is
    taken any more.
    """

    def __init__(
        self,
        database: EmptyDatabase,
        how: str,
        *,
        at: bytes = b"COMMIT",
        after: bytes = b"SAVEPOINT elt_group",
        then: Callable[[], object] = lambda: None,
        deaf: bool = False,
    ) -> None:
        self._how, self._at, self._after, self._then, self._deaf = how, at, after, then, deaf
        self._server = f"{database.connect_args['host']}/.s.PGSQL.{database.connect_args['port']}"
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.connect_args = database.connect_args | {"host": "127.0.0.1", "port": f"{self._listener.getsockname()[1]}"}
        self._open: list[socket.socket] = []
        self.cut = threading.Event()
        self._open_again = threading.Event()

    def __enter__(self) -> PostgresProxy:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_error: object) -> None:
        for each in [self._listener, *self._open]:
            # close() alone wakes no thread that waits in accept() or recv()
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                if self._deaf and self.cut.is_set():
                    _reset(client)
                    continue
                if self.cut.is_set():
                    assert self._open_again.wait(30)
                server = socket.socket(socket.AF_UNIX)
                server.connect(self._server)
                self._open += [client, server]
                swallow, swallowed = threading.Event(), threading.Event()
                for work in (self._forward, self._return):
                    threading.Thread(target=work, args=(client, server, swallow, swallowed), daemon=True).start()

    def _forward(
        self, client: socket.socket, server: socket.socket, swallow: threading.Event, swallowed: threading.Event
    ) -> None:
        armed = not self._after
        with suppress(OSError):
            while data := client.recv(65536):
                armed = armed or self._after in data
                # simple query message: Q, four bytes of length, text
                if armed and data[:1] == b"Q" and data[5:].startswith(self._at) and not self.cut.is_set():
                    self.cut.set()
                    if self._how == "answered":
                        swallow.set()
                    if self._how != "before":
                        server.sendall(data)
                    if self._how == "answered":
                        assert swallowed.wait(30)
                    _reset(client)
                    # otherwise the server's session would wait for more, and keep the run lock
                    with suppress(OSError):
                        server.shutdown(socket.SHUT_RDWR if self._how == "before" else socket.SHUT_WR)
                    self._then()
                    self._open_again.set()
                    return
                server.sendall(data)
            server.shutdown(socket.SHUT_WR)

    def _return(
        self, client: socket.socket, server: socket.socket, swallow: threading.Event, swallowed: threading.Event
    ) -> None:
        with suppress(OSError):
            while data := server.recv(65536):
                if swallow.is_set():
                    swallowed.set()
                    break
                client.sendall(data)
            else:
                client.shutdown(socket.SHUT_WR)
        server.close()


class IdleProxy:
    """Cuts each connection on which no byte passes for `seconds`, as some proxies do. Use as a context manager."""

    def __init__(self, database: EmptyDatabase, seconds: float) -> None:
        self._seconds = seconds
        self._server = f"{database.connect_args['host']}/.s.PGSQL.{database.connect_args['port']}"
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.connect_args = database.connect_args | {"host": "127.0.0.1", "port": f"{self._listener.getsockname()[1]}"}

    def __enter__(self) -> IdleProxy:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_error: object) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def await_cut(self) -> None:
        """Return when a connection that sends nothing, opened now, was cut."""
        with socket.create_connection(("127.0.0.1", int(self.connect_args["port"]))) as idle, suppress(OSError):
            idle.recv(1)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.socket(socket.AF_UNIX)
                server.connect(self._server)
                threading.Thread(target=self._pass_on, args=(client, server), daemon=True).start()

    def _pass_on(self, client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError), client, server:
            while ready := select.select([client, server], [], [], self._seconds)[0]:
                for each in ready:
                    if not (data := each.recv(65536)):
                        return
                    (server if each is client else client).sendall(data)
            _reset(client)


def _reset(connection: socket.socket) -> None:
    """Close with a reset, as a firewall does, so that the other side notices at once."""
    with suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()
