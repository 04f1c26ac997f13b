"""Brings Flink and Spark to a machine without docker: job servers and a Flink distribution.

Beam's job server is a main class and its classpath. Where the one big jar that Beam's runners look
for can't be had, Maven collects the parts by a pom with fixed versions, and a jar that holds only a
Class-Path stands for the big one (`--flink_job_server_jar`, `--spark_job_server_jar`). The Flink
distribution is put together from its two Python packages, which are only unpacked, not installed.

Everything is kept in ~/.cache/shardstream-runners (or $SHARDSTREAM_RUNNERS_CACHE), a folder a
version of the pom, made under a private name and published whole.

    python -m tools.fetch_runners flink      # prints the path of the job server's jar
    python -m tools.fetch_runners spark
    python -m tools.fetch_runners cluster    # prints FLINK_HOME, Beam's jars on its classpath
"""

import argparse
import contextlib
import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

from shardstream.shard_format.storage.local_publish import publishing_folder

FLINK_VERSION = "1.19.3"
_MAINS = {
    "flink": "org.apache.beam.runners.flink.FlinkJobServerDriver",
    "spark": "org.apache.beam.runners.spark.SparkJobServerDriver",
}
_COPY_JARS = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies"
# The distribution brings its own Flink. Logging is Beam's, plain lines on stderr: among its jars is
# an SLF4J 2, of which the distribution's Log4j binding knows nothing.
_NOT_FOR_CLUSTER = "flink-"
# Of the distribution's library: the runtime, without SQL and Log4j.
_DISTRIBUTION_JARS = "flink-dist-"
_PAUSE_SECS = 10


class ToolMissing(Exception):
    """Java or Maven isn't installed; the message says which."""


def missing_tools() -> str | None:
    """Returns which programs are missing, None where job servers can be fetched and run."""
    missing = [name for name in ("java", "mvn") if shutil.which(name) is None]
    return (
        f"{' and '.join(missing)} not found on PATH (Java 11 or 17, Maven 3)" if missing else None
    )


def fetch_job_server(engine: str) -> Path:
    """Returns the jar of Beam's job server for "flink" or "spark", fetching it the first time.

    Raises:
        ToolMissing: Java or Maven isn't there.
        subprocess.CalledProcessError: Maven failed; its output says why.
    """
    pom = Path(__file__).with_name(f"{engine}_pom.xml")
    with _cached(engine, pom.read_bytes()) as (folder, private):
        if private is not None:
            shutil.copy(pom, private / "pom.xml")
            command = ["mvn", "-B", "-q", _COPY_JARS, "-DincludeScope=runtime"]
            _run([*command, "-DoutputDirectory=lib"], private)
            jars = sorted((private / "lib").glob("*.jar"))
            _write_class_path_jar(private / "job-server.jar", jars, _MAINS[engine])
    return folder / "job-server.jar"


def fetch_flink() -> Path:
    """Returns a FLINK_HOME whose lib/ holds Beam's jars too, so that jobs needn't bring them.

    Raises:
        ToolMissing: Java or Maven isn't there.
        subprocess.CalledProcessError: a download failed; its output says why.
    """
    beam = sorted((fetch_job_server("flink").parent / "lib").glob("*.jar"))
    identity = "\n".join([FLINK_VERSION, _DISTRIBUTION_JARS, *(jar.name for jar in beam)])
    with _cached(f"cluster-{FLINK_VERSION}", identity.encode()) as (folder, private):
        if private is not None:
            pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", "download"]
            version = f"=={FLINK_VERSION}"
            # Only the source archive of -libraries exists; a wheel of the other spares its build.
            _run([*pip, "--no-binary", ":all:", f"apache-flink-libraries{version}"], private)
            _run([*pip, "--only-binary", ":all:", f"apache-flink{version}"], private)
            _unpack_flink(private / "download", private)
            for jar in beam:
                if not jar.name.startswith(_NOT_FOR_CLUSTER):
                    (private / "lib" / jar.name).symlink_to(jar)
            shutil.rmtree(private / "download")
    return folder


def cluster_boot_path() -> tuple[list[Path], list[Path]]:
    """Returns (jars of the class path, jars of the boot path) of a job server for a cluster.

    A job server sends its whole class path to the cluster with each job, here 157 MB. The cluster
    has these jars already; what stands on the boot path isn't sent. What calls Flink or Beam can't
    stand there.
    """
    jars = sorted((fetch_job_server("flink").parent / "lib").glob("*.jar"))
    own = [
        jar
        for jar in jars
        if jar.name.startswith(("beam-", "flink-"))
        and not jar.name.startswith(("beam-vendor-", "flink-shaded-"))
    ]
    return own, [jar for jar in jars if jar not in own]


@contextlib.contextmanager
def _cached(name: str, identity: bytes) -> Iterator[tuple[Path, Path | None]]:
    """Yields (folder, private folder to fill); None for the latter where the folder is there."""
    cache = os.environ.get("SHARDSTREAM_RUNNERS_CACHE") or "~/.cache/shardstream-runners"
    folder = Path(cache).expanduser() / f"{name}-{hashlib.sha256(identity).hexdigest()[:12]}"
    if folder.exists():
        yield folder, None
        return
    missing = missing_tools()
    if missing:
        raise ToolMissing(missing)
    print(f"fetching {name} into {folder}", file=sys.stderr, flush=True)
    with publishing_folder(folder) as private:
        yield folder, private


def _run(command: list[str], folder: Path) -> None:
    """Runs a command that downloads; a registry that fails once gets a second try."""
    for pause in (_PAUSE_SECS, 0):
        done = subprocess.run(
            command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        if not done.returncode:
            return
        print(done.stdout, file=sys.stderr)
        time.sleep(pause)
    done.check_returncode()


def _write_class_path_jar(path: Path, jars: list[Path], main_class: str) -> None:
    """Writes a jar that starts main_class with jars on its class path, relative to its folder."""
    entries = " ".join(jar.relative_to(path.parent).as_posix() for jar in jars)
    lines = ["Manifest-Version: 1.0", f"Main-Class: {main_class}", f"Class-Path: {entries}"]
    text = ""
    for line in lines:  # no line of a manifest is longer than 72 bytes
        first, rest = line[:70], line[70:]
        text += first + "\r\n"
        for begin in range(0, len(rest), 69):
            text += f" {rest[begin : begin + 69]}\r\n"
    with zipfile.ZipFile(path, "w") as jar:
        jar.writestr("META-INF/MANIFEST.MF", text + "\r\n")


def _unpack_flink(download: Path, home: Path) -> None:
    """Lays out bin/ and lib/ from the two packages in download."""
    for part in ("bin", "lib", "conf"):
        (home / part).mkdir()
    (archive,) = download.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        for member in tar:
            folder, name = Path(member.name).parent.name, Path(member.name).name
            wanted = folder == "bin" or (folder == "lib" and name.startswith(_DISTRIBUTION_JARS))
            source = tar.extractfile(member) if member.isfile() and wanted else None
            if source is not None:
                with source, (home / folder / name).open("wb") as target:
                    shutil.copyfileobj(source, target)
    (wheel,) = download.glob("*.whl")
    with zipfile.ZipFile(wheel) as package:
        for name in package.namelist():
            path = Path(name)
            if path.parent.as_posix() in ("pyflink/bin", "pyflink/conf") and path.name:
                target = home / path.parent.name / path.name
                target.write_bytes(package.read(name))
                target.chmod(0o755 if path.suffix == ".sh" else 0o644)


def main() -> int:
    """Runs the command; returns its exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=[*_MAINS, "cluster"])
    what = parser.parse_args().what
    try:
        print(fetch_flink() if what == "cluster" else fetch_job_server(what))
    except ToolMissing as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
