"""The HTTP side of the loopback hub: its server, its answers, and how faults spoil them.

An answer is in `Hub.requests` before its client sees it. Byte ranges, headers and error codes are
the Hub's own, so that its clients take their usual paths.
"""

import contextlib
import dataclasses
import io
import json
import re
import socket
import struct
import time
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal
from urllib.parse import parse_qs, unquote, urlencode, urlsplit

if TYPE_CHECKING:
    from tests.loopback_hub import Hub

RepoKind = Literal["datasets", "models"]
FaultKind = Literal["reset", "truncated", "short", "slow", "stall", "404", "429", "503"]

_PIECE_BYTES = 1 << 20
_SLOW_PIECES = 10
_API_URL = re.compile(
    r"/api/(datasets|models)/(.+?)(?:/(revision|tree|paths-info|refs|commits)(/.*)?)?"
)
_FILE_URL = re.compile(r"/(datasets/)?(.+?)/resolve/([^/]+)/(.+)")


@dataclasses.dataclass(kw_only=True)
class Request:
    """One answer.

    `range` is the request's header, `bytes_sent` the body handed to the socket, `started` the
    clock's time (time.monotonic, one for all processes of a machine) before the answer.
    """

    method: str
    path: str
    range: str | None
    status: int
    fault: FaultKind | None
    bytes_sent: int = 0
    started: float = dataclasses.field(default_factory=time.monotonic)


@dataclasses.dataclass(kw_only=True)
class Fault:
    """A fault to inject; see `Hub.add_fault`. `fired` counts the answers it spoiled."""

    pattern: str
    kind: FaultKind
    times: int
    method: str | None
    skip: int
    seconds: float
    retry_after_secs: int | None
    fired: int = 0


class HubError(Exception):
    """An error answer: HTTP status, the Hub's `X-Error-Code`, and its message."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code = status, code


def parse_range(header: str | None, size_bytes: int) -> tuple[int, int]:
    """Returns (first byte, one past the last) for a Range header; everything without one.

    Raises:
        HubError: 416, when no byte of the file is in the range.
    """
    match = re.fullmatch(r"bytes=(\d*)-(\d*)", header or "bytes=0-")
    if match is None or match[0] == "bytes=-":
        raise HubError(416, "InvalidRange", f"Range {header!r} is not understood")
    first, last = match.groups()
    if not first:
        return max(0, size_bytes - int(last)), size_bytes
    start, stop = int(first), min(size_bytes, int(last) + 1) if last else size_bytes
    if header and start >= stop:
        raise HubError(416, "InvalidRange", f"Range {header!r} of a file of {size_bytes} bytes")
    return start, stop


class Server(ThreadingHTTPServer):
    """Serves a hub on a port of 127.0.0.1; remembers connections, so as to end them."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, hub: "Hub", port: int) -> None:
        self.hub = hub
        self.connections: set[socket.socket] = set()
        self.dropped: set[socket.socket] = set()
        super().__init__(("127.0.0.1", port), _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        self.connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self.connections.discard(request)
        if request in self.dropped:  # close without the FIN of shutdown(): the peer sees RST
            self.dropped.discard(request)
            request.close()
        else:
            super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not self.hub.stopping.is_set():
            super().handle_error(request, client_address)

    def close_connections(self) -> None:
        """Ends every open connection."""
        for connection in list(self.connections):
            with contextlib.suppress(OSError):  # its own thread was quicker
                connection.shutdown(socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Server

    def do_HEAD(self) -> None:
        self._answer(b"")

    def do_GET(self) -> None:
        self._answer(b"")

    def do_POST(self) -> None:
        self._answer(self.rfile.read(int(self.headers.get("Content-Length", 0))))

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing on stderr; `Hub.requests` is the log."""

    def _answer(self, body: bytes) -> None:
        url = urlsplit(self.path)
        fault = self.server.hub.take_fault(self.command, unquote(url.path))
        kind = fault.kind if fault else None
        content: bytes | Path
        start = 0
        try:
            if kind in ("404", "429", "503"):
                raise HubError(int(kind), "", "injected fault")
            status, headers, content, start, stop = self._route(url.path, url.query, body)
        except HubError as error:
            content = json.dumps({"error": str(error)}).encode()
            status, stop = error.status, len(content)
            headers = {"X-Error-Code": error.code, "X-Error-Message": str(error)}
            if fault and fault.retry_after_secs is not None and kind in ("429", "503"):
                headers["Retry-After"] = str(fault.retry_after_secs)
        request = Request(
            method=self.command,
            path=unquote(url.path),
            range=self.headers.get("Range"),
            status=status,
            fault=kind,
        )
        self.server.hub.requests.append(request)
        try:
            self._send(request, headers, content, start, stop, fault)
        except (ConnectionError, TimeoutError):
            self.close_connection = True

    def _route(
        self, path: str, query: str, body: bytes
    ) -> tuple[int, dict[str, str], bytes | Path, int, int]:
        """Returns status, headers, and the span of bytes or of a file that is the body."""
        hub = self.server.hub
        token = self.headers.get("Authorization", "").removeprefix("Bearer ").strip() or None
        if match := _FILE_URL.fullmatch(path):
            kind: RepoKind = "datasets" if match[1] else "models"
            hub.check_access(kind, unquote(match[2]), token)
            commit = hub.find_commit(kind, unquote(match[2]), unquote(match[3]))
            blob = commit.files.get(unquote(match[4]))
            if blob is None:
                raise HubError(
                    404, "EntryNotFound", f"{unquote(path)}: no such file in {commit.sha}"
                )
            start, stop = parse_range(self.headers.get("Range"), blob.size_bytes)
            headers = {
                "X-Repo-Commit": commit.sha,
                "ETag": f'"{blob.etag}"',
                "Accept-Ranges": "bytes",
                "Content-Type": "application/octet-stream",
            }
            status = 200
            if self.headers.get("Range"):
                status = 206
                headers["Content-Range"] = f"bytes {start}-{stop - 1}/{blob.size_bytes}"
            return status, headers, blob.stored_at, start, stop
        if match := _API_URL.fullmatch(path):
            answer, headers = self._api(match, query, body)
            content = json.dumps(answer).encode()
            return 200, {"Content-Type": "application/json", **headers}, content, 0, len(content)
        raise HubError(404, "", f"{path}: the loopback hub has no such endpoint")

    def _api(
        self, match: re.Match[str], query: str, body: bytes
    ) -> tuple[list[Any] | dict[str, Any], dict[str, str]]:
        """Answers `/api/...`: metadata, which the Hub leaves open for gated repositories."""
        hub = self.server.hub
        kind: RepoKind = "models" if match[1] == "models" else "datasets"
        repo, verb = unquote(match[2]), match[3]
        revision, _, path = (match[4] or "/main")[1:].partition("/")
        history = hub.history(kind, repo, unquote(revision))
        commit = history[-1]
        options = parse_qs(query)
        if verb == "refs":
            main = hub.find_commit(kind, repo, "main").sha
            branch = {"name": "main", "ref": "refs/heads/main", "targetCommit": main}
            return {"branches": [branch], "converts": [], "tags": []}, {}
        if verb == "commits":
            page = [
                {
                    "id": c.sha,
                    "title": f"commit {i}",
                    "message": "",
                    "authors": [],
                    "date": _date(i),
                }
                for i, c in enumerate(history)
            ]
            return page[::-1], {}
        if verb == "paths-info":
            if self.headers.get_content_type() == "application/json":
                return commit.paths_info(json.loads(body)["paths"]), {}
            return commit.paths_info(parse_qs(body.decode()).get("paths", [])), {}
        if verb == "tree":
            folder = unquote(path).strip("/")
            recursive = options.get("recursive", ["false"])[0].lower() in ("true", "1")
            entries = commit.entries(folder, recursive=recursive)
            if folder and not entries:
                raise HubError(404, "EntryNotFound", f"{folder}: no such directory in {commit.sha}")
            start = int(options.get("cursor", ["0"])[0])
            stop = start + hub.page_entries
            headers = {}
            if stop < len(entries):
                options["cursor"] = [str(stop)]
                following = f"{hub.url}{match[0]}?{urlencode(options, doseq=True)}"
                headers["Link"] = f'<{following}>; rel="next"'
            return entries[start:stop], headers
        return {
            "id": repo,
            "sha": commit.sha,
            "lastModified": _date(len(history) - 1),
            "private": False,
            "gated": "manual" if hub.is_gated(kind, repo) else False,
            "disabled": False,
            "downloads": 0,
            "likes": 0,
            "tags": [],
            "siblings": [{"rfilename": p, "size": b.size_bytes} for p, b in commit.files.items()],
        }, {}

    def _send(
        self,
        request: Request,
        headers: Mapping[str, str],
        content: bytes | Path,
        start: int,
        stop: int,
        fault: Fault | None,
    ) -> None:
        """Sends the answer, spoiled by `fault` if there is one."""
        kind = fault.kind if fault else None
        is_cut = kind in ("reset", "truncated", "short", "stall")
        cut = start + (stop - start) // 2 if is_cut else stop
        self.send_response(request.status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str((cut if kind == "short" else stop) - start))
        self.end_headers()
        piece_bytes = _PIECE_BYTES
        if kind == "slow":
            piece_bytes = max(1, -(-(stop - start) // _SLOW_PIECES))
        if self.command != "HEAD":
            with _open(content) as stream:
                for offset in range(start, cut, piece_bytes):
                    if fault and kind == "slow":
                        self.server.hub.stopping.wait(fault.seconds / _SLOW_PIECES)
                    stream.seek(offset)
                    piece = stream.read(min(piece_bytes, cut - offset))
                    request.bytes_sent += len(piece)
                    self.wfile.write(piece)
        if fault and kind == "stall":
            self.wfile.flush()
            self.server.hub.stopping.wait(fault.seconds)
        if kind == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.server.dropped.add(self.connection)
        if kind in ("reset", "truncated", "stall"):
            self.close_connection = True


def _open(content: bytes | Path) -> BinaryIO:
    return io.BytesIO(content) if isinstance(content, bytes) else content.open("rb")


def _date(commit_index: int) -> str:
    """A date that depends on the history alone, a minute a commit."""
    hours, minutes = divmod(commit_index, 60)
    return f"2026-01-01T{hours:02}:{minutes:02}:00.000Z"
