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
import fnmatch
import hashlib
import os
import shlex
import shutil
import tempfile
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Self, get_args

from tests.loopback_hub_commits import Blob, Commit
from tests.loopback_hub_http import Fault, FaultKind, HubError, RepoKind, Request, Server


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
        self._server = Server(self, port)
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
        retry_after_secs: int | None = 0,
    ) -> Fault:
        """Spoils the next `times` answers whose URL path matches the fnmatch `pattern`.

        Args:
            pattern: for example `*/resolve/*.parquet`; `*` crosses slashes.
            kind: `reset` drops the connection (RST) half way through the body; `truncated` ends it
                cleanly there, so Content-Length betrays it; `short` sends half with a
                Content-Length that agrees; `stall` sends half and then nothing for `seconds`;
                `slow`, `404`, `429` and `503` are what they say.
            times: answers to spoil, -1 for all.
            method: only this HTTP method, None for any.
            skip: matching answers to let through first.
            seconds: `slow` spreads the body over them.
            retry_after_secs: the Retry-After of `429` and `503`; None leaves the header out.
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
