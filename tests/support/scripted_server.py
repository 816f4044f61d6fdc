"""A server on loopback that serves one object; a script sets its behaviour for each request."""

from __future__ import annotations

import re
import socket
import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class ScriptedServer:
    """Serves one object with Range, ETag and If-Match; `script` changes the next responses."""

    def __init__(self, body: bytes) -> None:
        self.body, self.etag = body, '"v1"'
        #: each entry is a dict: status, headers, body, cut (bytes after which to hang up), stall, ignore_range, length,
        #: chunked, raw (bytes instead of status, headers and body), trickle (called for each further byte, for ever)
        self.script: list[dict] = []
        self.requests: list[dict[str, str]] = []
        self.connections = 0
        self.released = threading.Event()
        #: set once a client has closed the connection of a trickle
        self.hung_up = threading.Event()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def setup(self) -> None:
                server.connections += 1
                super().setup()

            def do_GET(self) -> None:
                server.requests.append({name.lower(): value for name, value in self.headers.items()})
                plan = server.script.pop(0) if server.script else {}
                if "raw" in plan:
                    self.wfile.write(plan["raw"])
                    server.trickle(self, plan)
                else:
                    server.answer(self, plan)

            do_POST = do_GET

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.handle_error = lambda request, address: None  # a client that hangs up is no error here
        self.url = f"http://127.0.0.1:{self._server.server_port}/object.csv.gz?sig=hunter2"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.005,), daemon=True)
        self._thread.start()

    def use_tls(self, context: ssl.SSLContext) -> None:
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)

    def close(self) -> None:
        if self.released.is_set():
            return
        self.released.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def answer(self, handler: BaseHTTPRequestHandler, plan: dict) -> None:
        status, body, headers = 200, self.body, {"ETag": self.etag}
        asked = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range", ""))
        if handler.headers.get("If-Match", self.etag) != self.etag:
            status, body = 412, b"<Error><Code>PreconditionFailed</Code></Error>"
        elif asked and not plan.get("ignore_range"):
            start = int(asked[1])
            status, body = (206, body[start:]) if start < len(body) else (416, b"")
            headers["Content-Range"] = f"bytes {start}-{len(self.body) - 1}/{len(self.body)}"
        status, body = plan.get("status", status), plan.get("body", body)
        handler.send_response(status)
        for name, value in (headers | plan.get("headers", {})).items():
            handler.send_header(name, value)
        if plan.get("chunked"):
            handler.send_header("Transfer-Encoding", "chunked")
        elif plan.get("length", "") is not None:
            handler.send_header("Content-Length", str(plan.get("length", len(body))))
        handler.end_headers()
        sent = body[: plan.get("cut", len(body))]
        if plan.get("chunked"):
            handler.wfile.write(b"%x\r\n%b\r\n" % (len(sent), sent) + (b"" if plan["cut"] else b"0\r\n\r\n"))
        else:
            handler.wfile.write(sent)
        if plan.get("stall"):
            self.released.wait(30)
        self.trickle(handler, plan)
        if "cut" in plan or "stall" in plan or "length" in plan:
            handler.close_connection = True
        if plan.get("reset"):
            linger = (1).to_bytes(4, "little") + (0).to_bytes(4, "little")
            handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)

    def trickle(self, handler: BaseHTTPRequestHandler, plan: dict) -> None:
        """Send `drops`, one after the other, for ever. `trickle` moves the client's clock meanwhile."""
        if "trickle" not in plan:
            return
        handler.close_connection = True
        try:
            while not self.released.wait(0.001):
                handler.wfile.write(plan.get("drops", b"x"))
                plan["trickle"]()
        except OSError:
            self.hung_up.set()
