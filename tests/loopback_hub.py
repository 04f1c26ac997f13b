"""A small real HTTP server on 127.0.0.1 that stands in for the Hugging Face Hub.

Unmodified `datasets.load_dataset(..., streaming=True)`, `huggingface_hub` and
`transformers.AutoTokenizer` work against it through `HF_ENDPOINT`, so tests run the shipped
read path, byte ranges and retries included, rather than a mock of it. `huggingface_hub` reads
that variable when imported: run the code under test in a subprocess with `hub_environment(hub)`.

Repositories are plain files, `ROOT/datasets/OWNER/NAME/...` and `ROOT/models/OWNER/NAME/...`.
Invariant: a commit never changes. Its sha is a hash of (path, content) alone, and each file of a
commit is hard-linked under `ROOT/.objects`, so old revisions stay readable after `add_commit`.
Replace a repository's files through `add_commit` only; a write in place would change history.

By hand: `python -m tests.loopback_hub ROOT --port 8000`, then `HF_ENDPOINT=http://127.0.0.1:8000`.
"""

import argparse
import contextlib
import dataclasses
import fnmatch
import hashlib
import io
import json
import os
import re
import shlex
import shutil
import socket
import struct
import tempfile
import threading
from collections.abc import Iterable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, BinaryIO, Literal, Self, get_args
from urllib.parse import parse_qs, unquote, urlencode, urlsplit

RepoKind = Literal["datasets", "models"]
FaultKind = Literal["reset", "truncated", "short", "slow", "429", "503"]

_LFS_SUFFIXES = (".parquet", ".arrow", ".gz", ".zst", ".bin", ".safetensors")  # as .gitattributes
_PIECE_BYTES = 1 << 20
_SLOW_PIECES = 10
_API_URL = re.compile(
    r"/api/(datasets|models)/(.+?)(?:/(revision|tree|paths-info|refs|commits)(/.*)?)?"
)
_FILE_URL = re.compile(r"/(datasets/)?(.+?)/resolve/([^/]+)/(.+)")


@dataclasses.dataclass(kw_only=True)
class Request:
    """One answer; `range` is the request's header, `bytes_sent` the body handed to the socket."""

    method: str
    path: str
    range: str | None
    status: int
    fault: FaultKind | None
    bytes_sent: int = 0


@dataclasses.dataclass(kw_only=True)
class Fault:
    """A fault to inject; see `Hub.add_fault`. `fired` counts the answers it spoiled."""

    pattern: str
    kind: FaultKind
    times: int
    method: str | None
    skip: int
    seconds: float
    retry_after_secs: int
    fired: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Blob:
    """One file of a commit and where its bytes are kept."""

    path: str
    size_bytes: int
    sha256: str
    stored_at: Path

    @property
    def is_lfs(self) -> bool:
        return self.path.endswith(_LFS_SUFFIXES)

    @property
    def etag(self) -> str:
        return self.sha256 if self.is_lfs else self.sha256[:40]

    def entry(self) -> dict[str, Any]:
        """The file as the Hub's tree and paths-info answers describe it."""
        fields = {
            "type": "file",
            "path": self.path,
            "size": self.size_bytes,
            "oid": self.sha256[:40],
        }
        if self.is_lfs:
            fields["lfs"] = {"oid": self.sha256, "size": self.size_bytes, "pointerSize": 134}
        return fields


@dataclasses.dataclass(frozen=True, kw_only=True)
class Commit:
    """An immutable version of a repository: its sha and its files by path, sorted."""

    sha: str
    files: Mapping[str, Blob]

    def entries(self, folder: str, *, recursive: bool) -> list[dict[str, Any]]:
        """Files and directories under `folder` ("" is the root), in path order."""
        prefix = folder + "/" if folder else ""
        found: dict[str, dict[str, Any]] = {}
        for path, blob in self.files.items():
            if not path.startswith(prefix):
                continue
            parts = path.removeprefix(prefix).split("/")
            for depth in range(1, len(parts) if recursive else min(len(parts), 2)):
                directory = prefix + "/".join(parts[:depth])
                found[directory] = directory_entry(directory)
            if recursive or len(parts) == 1:
                found[path] = blob.entry()
        return [found[path] for path in sorted(found)]

    def paths_info(self, paths: Iterable[str]) -> list[dict[str, Any]]:
        """Those of `paths` that exist, as file or directory entries."""
        wanted = [path.strip("/") for path in paths]
        found = [self.files[path].entry() for path in wanted if path in self.files]
        folders = {str(parent) for path in self.files for parent in Path(path).parents}
        return found + [directory_entry(path) for path in wanted if path in folders]


class HubError(Exception):
    """An error answer: HTTP status, the Hub's `X-Error-Code`, and its message."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code = status, code


class Hub:
    """Serves the repositories under `root` until closed; use as a context manager.

    Guarantees: equal trees give equal shas; answers carry the sha in `X-Repo-Commit`; an
    answer is in `requests` before its client sees it. Thread-safe.

    Args:
        root: holds `datasets/` and `models/`; made if missing. `.objects/` is added to it.
        port: 0 takes a free one.
        page_entries: most entries in one tree answer; the rest follows by `Link: rel="next"`.
    """

    def __init__(self, root: Path | str, *, port: int = 0, page_entries: int = 1000) -> None:
        self.root = Path(root)
        self.page_entries = page_entries
        self.requests: list[Request] = []
        self.stopping = threading.Event()
        self._lock = threading.RLock()
        self._faults: list[Fault] = []
        self._commits: dict[tuple[RepoKind, str], list[Commit]] = {}
        self._allowed_tokens: dict[tuple[RepoKind, str], frozenset[str]] = {}
        self._home = tempfile.TemporaryDirectory(prefix="loopback-hub-home-")
        self.home = Path(self._home.name)
        self._server = _Server(self, port)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.05,), daemon=True
        )
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Stops serving, ends open connections and removes `home`."""
        self.stopping.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        self._server.close_connections()
        self._home.cleanup()

    def commit(self, repo: str, kind: RepoKind = "datasets") -> str:
        """Returns the sha of `main`; the files are read once, at the first use of the repository."""
        return self.find_commit(kind, repo, "main").sha

    def add_commit(
        self, repo: str, files: Mapping[str, bytes | Path | None], kind: RepoKind = "datasets"
    ) -> str:
        """Writes files (None deletes one) on top of `main`, creating the repository if needed.

        Returns:
            The new sha of `main`; earlier shas keep serving what they held.
        """
        with self._lock:
            folder = self.root / kind / repo
            if folder.is_dir():
                self.find_commit(kind, repo, "main")
            for path, content in files.items():
                target = folder / path
                if content is None:
                    target.unlink()
                    continue
                target.parent.mkdir(parents=True, exist_ok=True)
                fresh = target.with_name(target.name + ".incoming")
                fresh.write_bytes(content if isinstance(content, bytes) else content.read_bytes())
                fresh.replace(target)
            history = self._commits.setdefault((kind, repo), [])
            history.append(self._snapshot(folder))
            return history[-1].sha

    def gate(self, repo: str, kind: RepoKind = "datasets", tokens: Iterable[str] = ()) -> None:
        """Makes a repository gated: 401 without a token, 403 with one not in `tokens`."""
        self._allowed_tokens[kind, repo] = frozenset(tokens)

    def add_fault(
        self,
        pattern: str,
        kind: FaultKind,
        times: int = 1,
        *,
        method: str | None = "GET",
        skip: int = 0,
        seconds: float = 1.0,
        retry_after_secs: int = 0,
    ) -> Fault:
        """Spoils the next `times` answers whose URL path matches the fnmatch `pattern`.

        Args:
            pattern: for example `*/resolve/*.parquet`; `*` crosses slashes.
            kind: `reset` drops the connection (RST) half way through the body; `truncated` ends it
                cleanly there, so Content-Length betrays it; `short` sends half with a
                Content-Length that agrees; `slow`, `429` and `503` are what they say.
            times: answers to spoil, -1 for all.
            method: only this HTTP method, None for any.
            skip: matching answers to let through first.
            seconds: `slow` spreads the body over them.
            retry_after_secs: the Retry-After of `429`.
        """
        if kind not in get_args(FaultKind):
            raise ValueError(f"fault kind {kind!r}, expected one of {get_args(FaultKind)}")
        fault = Fault(
            pattern=pattern,
            kind=kind,
            times=times,
            method=method,
            skip=skip,
            seconds=seconds,
            retry_after_secs=retry_after_secs,
        )
        with self._lock:
            self._faults.append(fault)
        return fault

    def take_fault(self, method: str, path: str) -> Fault | None:
        """Uses up and returns the first fault due for a request."""
        with self._lock:
            for fault in self._faults:
                if fault.method not in (None, method) or not fnmatch.fnmatch(path, fault.pattern):
                    continue
                if fault.skip > 0:
                    fault.skip -= 1
                elif fault.times != 0:
                    fault.times -= 1
                    fault.fired += 1
                    return fault
        return None

    def bytes_sent(self, path_suffix: str = "") -> int:
        """Body bytes sent for URL paths that end in `path_suffix` since the last `reset_log`."""
        return sum(r.bytes_sent for r in list(self.requests) if r.path.endswith(path_suffix))

    def reset_log(self) -> None:
        """Forgets the requests logged so far."""
        self.requests = []

    def check_access(self, kind: RepoKind, repo: str, token: str | None) -> None:
        """Raises HubError if the repository is gated and `token` does not open it."""
        allowed = self._allowed_tokens.get((kind, repo))
        if allowed is not None and token not in allowed:
            status = 403 if token else 401
            raise HubError(status, "GatedRepo", f"Access to {kind} {repo} is restricted.")

    def is_gated(self, kind: RepoKind, repo: str) -> bool:
        """Whether `gate` was called for the repository."""
        return (kind, repo) in self._allowed_tokens

    def find_commit(self, kind: RepoKind, repo: str, revision: str) -> Commit:
        """Resolves `main` or a sha; raises HubError as the Hub would answer."""
        return self.history(kind, repo, revision)[-1]

    def history(self, kind: RepoKind, repo: str, revision: str) -> list[Commit]:
        """Commits up to `revision`, oldest first."""
        with self._lock:
            commits = self._commits.get((kind, repo))
            if commits is None:
                folder = self.root / kind / repo
                if ".." in repo or not folder.is_dir():
                    raise HubError(404, "RepoNotFound", f"{kind} {repo}: no such repository")
                commits = self._commits[kind, repo] = [self._snapshot(folder)]
            if revision == "main":
                return list(commits)
            for index, commit in enumerate(commits):
                if commit.sha == revision:
                    return commits[: index + 1]
        raise HubError(404, "RevisionNotFound", f"{kind} {repo}: no revision {revision}")

    def _snapshot(self, folder: Path) -> Commit:
        tree_hash = hashlib.sha1()
        files = {}
        for file in sorted(path for path in folder.rglob("*") if path.is_file()):
            with file.open("rb") as stream:
                sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
            path = file.relative_to(folder).as_posix()
            tree_hash.update(f"{path}\0{sha256}\n".encode())
            files[path] = Blob(
                path=path,
                size_bytes=file.stat().st_size,
                sha256=sha256,
                stored_at=self._store(file, sha256),
            )
        return Commit(sha=tree_hash.hexdigest(), files=files)

    def _store(self, file: Path, sha256: str) -> Path:
        kept = self.root / ".objects" / sha256
        if not kept.exists():
            kept.parent.mkdir(exist_ok=True)
            try:
                os.link(file, kept)
            except OSError:  # a symbolic link to another file system
                shutil.copyfile(file, kept)
        return kept


def hub_environment(hub: Hub, home: Path | None = None) -> dict[str, str]:
    """Variables that point a subprocess at `hub`; use as `{**os.environ, **hub_environment(hub)}`.

    Args:
        hub: the running hub.
        home: HF_HOME (caches); by default one directory a hub, removed when the hub closes.
    """
    return {
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(home or hub.home),
        "HF_TOKEN": "",
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DISABLE_UPDATE_CHECK": "1",
        "NO_PROXY": "127.0.0.1,localhost",
        "no_proxy": "127.0.0.1,localhost",
    }


def directory_entry(path: str) -> dict[str, Any]:
    """A directory as the Hub's tree and paths-info answers describe it."""
    oid = hashlib.sha1(path.encode()).hexdigest()
    return {"type": "directory", "path": path, "size": 0, "oid": oid}


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


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, hub: Hub, port: int) -> None:
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
        for connection in list(self.connections):
            with contextlib.suppress(OSError):  # its own thread was quicker
                connection.shutdown(socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

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
            if kind in ("429", "503"):
                raise HubError(int(kind), "", "injected fault")
            status, headers, content, start, stop = self._route(url.path, url.query, body)
        except HubError as error:
            content = json.dumps({"error": str(error)}).encode()
            status, stop = error.status, len(content)
            headers = {"X-Error-Code": error.code, "X-Error-Message": str(error)}
            if fault and kind == "429":
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
        cut = start + (stop - start) // 2 if kind in ("reset", "truncated", "short") else stop
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
        if kind == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.server.dropped.add(self.connection)
        if kind in ("reset", "truncated"):
            self.close_connection = True


def _open(content: bytes | Path) -> BinaryIO:
    return io.BytesIO(content) if isinstance(content, bytes) else content.open("rb")


def _date(commit_index: int) -> str:
    """A date that depends on the history alone, a minute a commit."""
    hours, minutes = divmod(commit_index, 60)
    return f"2026-01-01T{hours:02}:{minutes:02}:00.000Z"


def main() -> None:
    """Serves a directory until interrupted."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("root", type=Path, help="holds datasets/OWNER/NAME and models/OWNER/NAME")
    parser.add_argument("--port", type=int, default=0, help="0: any free port")
    args = parser.parse_args()
    with Hub(args.root, port=args.port) as hub:
        for name, value in hub_environment(hub).items():
            print(f"export {name}={shlex.quote(value)}", flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
