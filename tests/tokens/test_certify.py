"""Certification catches what an engine does wrong, and certificates are kept and found again."""

from __future__ import annotations

import logging
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pytest

from shardstream.tokens.assemble import from_lists
from shardstream.tokens.engines import certificates, probes
from shardstream.tokens.engines import select as select_engine
from shardstream.tokens.engines.certificates import certificate_for
from shardstream.tokens.engines.certify import Certificate, certify, unsafe_rows
from shardstream.tokens.engines.code_points import CodePointSet
from shardstream.tokens.engines.engine import Encoded
from shardstream.tokens.load import TokenizerError
from shardstream.tokens.options import TokenizerOptions
from shardstream.tokens.tokenizer import Tokenizer, load_reference
from tests.tokens.conftest import whole_range

KEY = {"fingerprint": "f", "engine": "e", "engine_version": "1"}


class Characters:
    """The engine of these tests: an id a character, with a fault if one is given."""

    name = "characters"
    version = "1"

    def __init__(self, fault: Callable[[str], list[int] | None] = lambda text: None) -> None:
        self._fault = fault

    def encode(self, texts: pa.LargeStringArray) -> Encoded:
        rows = [self._fault(text) for text in texts.to_pylist()]
        return from_lists(
            [
                list(map(ord, t)) if r is None else r
                for t, r in zip(texts.to_pylist(), rows, strict=True)
            ]
        )


def _certify(engine: Characters, **changes) -> Certificate:
    settings = {"added_tokens": ["<eos>"], "has_normalizer": False, "shares_unicode_tables": False}
    return certify(engine, Characters(), **(settings | changes))


def test_certify_equal_engine_covers_all_candidates():
    certificate = _certify(Characters())
    assert certificate.failure is None
    assert certificate.unsafe_literals == ()
    assert len(certificate.code_points) == len(probes.certified_range())


def test_certify_wrong_code_point_leaves_it_out():
    certificate = _certify(Characters(lambda text: [0] if "\u1acf" in text else None))
    assert certificate.failure is None
    assert len(certificate.code_points) == len(probes.certified_range()) - 1
    outside, literal = unsafe_rows(pa.array(["a", "a\u1acfb"], pa.large_string()), certificate)
    assert (outside.tolist(), literal.tolist()) == ([False, True], [False, False])


def test_certify_wrong_everywhere_fails_rather_than_cover_nothing():
    tried = len(probes.certified_range())
    failure = _certify(Characters(lambda text: [0])).failure
    assert failure == f"it differs on {tried} of {tried} code points, U+1ACF the first"


def test_certify_wrong_only_between_digits_leaves_code_point_out():
    certificate = _certify(Characters(lambda text: [0] if "1\u00b72" in text else None))
    assert not certificate.code_points.members[0xB7]


def test_certify_wrong_literal_is_recorded():
    certificate = _certify(Characters(lambda text: [7] if "<eos>" in text else None))
    assert certificate.failure is None
    assert certificate.unsafe_literals == ("<eos>",)


def test_certify_wrong_literal_under_normalizer_fails():
    broken = Characters(lambda text: [7] if "<eos>" in text else None)
    assert "'<eos>' differently" in _certify(broken, has_normalizer=True).failure


@pytest.mark.parametrize(
    "text", ("\r\n\r\n", " " * 65, "e\u0301\u0301\u0301", "01234567890123456789")
)
def test_certify_wrong_mixture_fails(text):
    certificate = _certify(Characters(lambda other: [0] if text in other else None))
    assert "expected ids" in certificate.failure


def test_certify_raising_engine_fails():
    class Panic(BaseException):
        """What a Rust panic is to Python."""

    def panic(text: str) -> None:
        if len(text) > 500_000:
            raise Panic("index out of bounds")

    assert _certify(Characters(panic)).failure == (
        "it raises Panic on a probe: index out of bounds"
    )


@pytest.mark.parametrize(
    "certificate",
    (
        Certificate(),
        Certificate(failure="why"),
        Certificate(code_points=CodePointSet.of(np.arange(50)), unsafe_literals=("<a>", "｜é")),
    ),
)
def test_certificate_for_second_time_is_read(certificate, tmp_path, monkeypatch):
    monkeypatch.setenv("SHARDSTREAM_CACHE", str(tmp_path))
    assert certificate_for(KEY, lambda: certificate) is certificate
    found = certificate_for(KEY, lambda: pytest.fail("made again"))
    assert found.failure == certificate.failure
    assert found.unsafe_literals == certificate.unsafe_literals
    if certificate.code_points is None:
        assert found.code_points is None
    else:
        assert np.array_equal(found.code_points.members, certificate.code_points.members)


@pytest.mark.parametrize("name", KEY)
def test_certificate_for_other_key_is_made(name, tmp_path, monkeypatch):
    monkeypatch.setenv("SHARDSTREAM_CACHE", str(tmp_path))
    certificate_for(KEY, Certificate)
    other = Certificate(failure="other")
    assert certificate_for(KEY | {name: "changed"}, lambda: other) is other


@pytest.mark.parametrize("content", (b"", b"PK\x03\x04 cut", b"no archive at all"))
def test_certificate_for_damaged_file_is_made_again(content, tmp_path, monkeypatch):
    monkeypatch.setenv("SHARDSTREAM_CACHE", str(tmp_path))
    certificate_for(KEY, Certificate)
    (path,) = tmp_path.rglob("*.npz")
    path.write_bytes(content)
    other = Certificate(failure="other")
    assert certificate_for(KEY, lambda: other) is other
    assert certificate_for(KEY, lambda: pytest.fail("made again")).failure == "other"


def test_certificate_for_unwritable_cache_warns_and_works(tmp_path, monkeypatch, caplog):
    (tmp_path / "file").touch()
    monkeypatch.setenv("SHARDSTREAM_CACHE", str(tmp_path / "file"))
    assert certificate_for(KEY, Certificate).failure is None
    assert "set SHARDSTREAM_CACHE" in caplog.text


def test_cache_directory_follows_xdg(monkeypatch, tmp_path):
    monkeypatch.delenv("SHARDSTREAM_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert certificates.cache_directory() == tmp_path / "shardstream"


def _broken_gigatoken(monkeypatch, tmp_path) -> None:
    """Puts an engine that splits nothing right in gigatoken's place."""
    monkeypatch.setenv("SHARDSTREAM_CACHE", str(tmp_path))
    build = lambda content, *, split_special_tokens: Characters()  # noqa: E731
    monkeypatch.setitem(select_engine._NATIVE, "gigatoken", build)


def test_select_engine_auto_passes_over_failed_engine(directory_of, monkeypatch, tmp_path, caplog):
    _broken_gigatoken(monkeypatch, tmp_path)
    options = TokenizerOptions(tokenizer=str(directory_of("gpt2")))
    with caplog.at_level(logging.INFO):
        tokenizer = Tokenizer(options, load_reference(options))
    assert tokenizer.engine_name == "tokenizers"
    assert "it fails certification: it differs on" in caplog.text


def test_select_engine_by_name_failed_raises(directory_of, monkeypatch, tmp_path):
    _broken_gigatoken(monkeypatch, tmp_path)
    options = TokenizerOptions(tokenizer=str(directory_of("gpt2")), engine="gigatoken")
    with pytest.raises(TokenizerError, match="'gigatoken' cannot be used: it fails certification"):
        Tokenizer(options, load_reference(options))


def test_select_engine_by_name_unsupported_raises(directory_of):
    options = TokenizerOptions(
        tokenizer=str(directory_of("unigram")), engine="gigatoken", add_eos=False
    )
    with pytest.raises(TokenizerError, match=r"Unigram.*Pass --engine=auto"):
        Tokenizer(options, load_reference(options))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "num_differing"), (("gpt2", 0), ("deepseek", 83)))
def test_certify_gigatoken_whole_range(directory_of, monkeypatch, tmp_path, name, num_differing):
    monkeypatch.setenv("SHARDSTREAM_CACHE", str(tmp_path))
    monkeypatch.setattr(probes, "certified_range", whole_range)
    options = TokenizerOptions(tokenizer=str(directory_of(name)), engine="gigatoken")
    assert Tokenizer(options, load_reference(options)).engine_name == "gigatoken"
    (path,) = tmp_path.rglob("*.npz")
    with np.load(path) as archive:
        num_certified = np.unpackbits(archive["code_points"]).sum() - 0x800  # surrogates are set
    assert num_certified == len(whole_range()) - num_differing
