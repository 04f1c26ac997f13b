"""A proxy before a store's server that counts requests and, when told to, breaks them."""

import dataclasses
import http.client
import socket
import struct
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self
from urllib.parse import unquote, urlsplit

FAULTS = ("500", "503", "429", "reset", "cut", "corrupt")


@dataclasses.dataclass
class Fault:
    """What goes wrong with the next `times` requests of `method` whose path holds `match`."""

    kind: str
    match: str = ""
    times: int = 1
    method: str = "GET"


class FaultyProxy:
    """Passes requests on to a server on loopback.

    Attributes:
        url: where it listens.
        requests: (method, path) of every request since `clear`, failed ones too.
        body_bytes: answered to GET requests since `clear`.
        faults: to come.
    """

    def __init__(self, target: str) -> None:
        self._target = urlsplit(target).netloc
        self._lock = threading.Lock()
        self.faults: list[Fault] = []
        self.clear()
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_GET(self) -> None:
                proxy._pass_on(self)

            do_HEAD = do_PUT = do_POST = do_DELETE = do_GET

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def clear(self) -> None:
        """Starts counting anew."""
        self.requests: list[tuple[str, str]] = []
        self.body_bytes = 0

    def fail(self, kind: str, match: str = "", *, times: int = 1, method: str = "GET") -> None:
        """Breaks the next requests whose path holds match."""
        assert kind in FAULTS
        with self._lock:
            self.faults.append(Fault(kind, match, times, method))

    def _take_fault(self, method: str, path: str) -> str | None:
        with self._lock:
            self.requests.append((method, path))
            for fault in self.faults:
                if fault.times and fault.method == method and fault.match in path:
                    fault.times -= 1
                    return fault.kind
        return None

    def _pass_on(self, handler: BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        kind = self._take_fault(handler.command, unquote(handler.path))
        if kind == "reset":
            _reset(handler)
            return
        if kind is not None and kind.isdigit():
            handler.send_response(int(kind))
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return
        upstream = http.client.HTTPConnection(self._target)
        headers = {k: v for k, v in handler.headers.items() if k.lower() != "host"}
        upstream.request(handler.command, handler.path, body=body, headers=headers)
        answer = upstream.getresponse()
        data = answer.read()
        handler.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("content-length", "transfer-encoding", "connection", "date"):
                handler.send_header(name, value)
        length = answer.getheader("Content-Length") if handler.command == "HEAD" else len(data)
        if length is not None:
            handler.send_header("Content-Length", str(length))
        handler.end_headers()
        upstream.close()
        if kind == "cut":
            handler.wfile.write(data[: len(data) // 2])
            _reset(handler)
            return
        if kind == "corrupt":
            middle = len(data) // 2
            data = data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
        handler.wfile.write(data)
        if handler.command == "GET":
            with self._lock:
                self.body_bytes += len(data)

    def close(self) -> None:
        """Ends the proxy."""
        self._server.shutdown()
        self._server.server_close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _reset(handler: BaseHTTPRequestHandler) -> None:
    """Ends the connection as a broken network does."""
    handler.wfile.flush()
    linger = struct.pack("ii", 1, 0)
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    handler.connection.shutdown(socket.SHUT_RDWR)
    handler.close_connection = True
