"""Ties files of the hub that are named by URL to a commit, and says where pinned files lie.

A branch may move between planning and reading, or between a build and its repetition. So each
repository named by a URL is asked once, at the start, which commit its revision points to, and
workers read that commit. Files in buckets have no commits and stay as they are named.
"""

import functools
import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from shardstream.shard_format.messages import first_line
from shardstream.sources.errors import SourceError
from shardstream.sources.redact import redact

_COMMIT = re.compile(r"[0-9a-f]{40}")
_PINNED = re.compile(r"hf://(?:datasets/)?(?P<repo>[^@]+)@(?P<commit>[0-9a-f]{40})/(?P<path>.*)")


class HubPlace(NamedTuple):
    """Where a pinned file of the hub lies."""

    repo: str
    commit: str
    path: str


def hub_place(url: str) -> HubPlace | None:
    """Returns where a file lies on the hub, None for files elsewhere and for unpinned ones."""
    match = _PINNED.match(url)
    return None if match is None else HubPlace(match["repo"], match["commit"], match["path"])


def pin_urls(urls: Sequence[str]) -> tuple[str, ...]:
    """Returns addresses and patterns with the hub's named by commit, each repository asked once.

    Raises:
        SourceError: a repository or revision that isn't there, or that needs a token.
    """
    commits = functools.cache(_commit_of)

    def pin(url: str) -> str:
        hub_url = _as_hub_url(url)
        if not hub_url.startswith("hf://") or hub_url.startswith("hf://buckets/"):
            return url
        if hub_place(hub_url) is not None:
            return hub_url
        from huggingface_hub.utils import parse_hf_uri

        try:
            parsed = parse_hf_uri(hub_url)
        except ValueError as error:
            raise SourceError(
                f"--data_files {redact(url)}: {first_line(error)} Expected "
                "hf://datasets/OWNER/NAME/PATH or hf://datasets/OWNER/NAME@REVISION/PATH."
            ) from error
        commit = commits(parsed.type, parsed.id, parsed.revision, redact(url))
        kind = "" if parsed.type == "model" else f"{parsed.type}s/"
        return f"hf://{kind}{parsed.id}@{commit}/{parsed.path_in_repo}"

    return tuple(pin(url) for url in urls)


def repositories_of(urls: Sequence[str]) -> dict[str, str]:
    """Returns the commit of each repository that pinned files lie in; {} if any lies elsewhere."""
    places = [hub_place(url) for url in urls]
    found = [place for place in places if place is not None]
    return {p.repo: p.commit for p in found} if len(found) == len(places) else {}


def commit_of(repositories: Mapping[str, str]) -> str | None:
    """Returns what pins all files: the commit of their repository, or a hash of several commits."""
    if len(repositories) <= 1:
        return next(iter(repositories.values()), None)
    lines = "".join(f"{repo}@{commit}\n" for repo, commit in sorted(repositories.items()))
    return hashlib.sha256(lines.encode()).hexdigest()[:40]


def _as_hub_url(url: str) -> str:
    """Returns a download address of the hub as hf://, which says the same and can be pinned."""
    from huggingface_hub import constants

    prefix = f"{constants.ENDPOINT}/"
    if url.startswith(prefix) and "/resolve/" in url and "/buckets/" not in url:
        return "hf://" + url.removeprefix(prefix).split("?")[0].replace("/resolve/", "@", 1)
    return url


def _commit_of(kind: str, repo: str, revision: str | None, where: str) -> str:
    from huggingface_hub import HfApi, get_token
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    if revision is not None and _COMMIT.fullmatch(revision):
        return revision
    advice = "Check the URL; private repositories need HF_TOKEN."
    try:
        found = HfApi().repo_info(repo, repo_type=kind, revision=revision)
        # The hub tells everyone about a gated repository, and refuses only its files.
        if found.gated and get_token() is None:
            raise SourceError(gated_message(where))
        commit = found.sha
    except GatedRepoError as error:
        raise SourceError(gated_message(where)) from error
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        at = f", revision {revision!r}," if revision else ""
        raise SourceError(f"{where}: {repo!r}{at} was not found on the hub. {advice}") from error
    except (HfHubHTTPError, OSError) as error:
        raise SourceError(
            f"{where}: the hub can't be asked for the commit of {repo!r} ({first_line(error)}). "
            "Check the network, HF_ENDPOINT and HF_HUB_OFFLINE."
        ) from error
    if commit is None:
        raise SourceError(f"{where}: the hub names no commit of {repo!r}. {advice}")
    return commit


def gated_message(where: str) -> str:
    """Returns what to say of a gated repository that can't be read."""
    return (
        f"{where}: its repository is gated: ask for access on its hub page, then set HF_TOKEN or "
        "run `hf auth login`."
    )
