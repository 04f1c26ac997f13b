"""URLs: files of the hub are pinned to a commit, secrets stay out of what is shown."""

import pytest

from shardstream.sources.errors import SourceError
from shardstream.sources.pins import commit_of, hub_place, pin_urls, repositories_of
from shardstream.sources.redact import redact

_ONE, _TWO = "1" * 40, "2" * 40


def test_pinned_urls_and_other_places_stay_as_they_are() -> None:
    urls = (
        f"hf://datasets/acme/x@{_ONE}/**/*.jsonl",
        "hf://buckets/acme/x/a.jsonl",
        "data/*.jsonl",
        "gs://bkt/a.jsonl",
        "https://example.org/resolve/main/a.jsonl?key=1",
    )
    assert pin_urls(urls) == urls


def test_a_url_that_names_no_repository_is_refused() -> None:
    with pytest.raises(SourceError, match=r"--data_files hf://datasets/x.*expected|Expected"):
        pin_urls(["hf://datasets/x"])


@pytest.mark.parametrize("kind", ["datasets/", "", "spaces/"])
def test_place_of_a_pinned_file(kind: str) -> None:
    place = hub_place(f"hf://{kind}acme/x@{_ONE}/a/b.jsonl")
    assert place is not None
    assert (place.repo.endswith("acme/x"), place.commit, place.path) == (True, _ONE, "a/b.jsonl")
    assert hub_place(f"hf://{kind}acme/x@main/a/b.jsonl") is None


def test_all_repositories_of_a_source_pin_it() -> None:
    one, two = f"hf://datasets/acme/x@{_ONE}/a.jsonl", f"hf://datasets/acme/y@{_TWO}/a.jsonl"
    assert repositories_of([one, two]) == {"acme/x": _ONE, "acme/y": _TWO}
    assert repositories_of([one, "a.jsonl"]) == {}
    assert commit_of({"acme/x": _ONE}) == _ONE
    assert commit_of({}) is None
    both = commit_of({"acme/x": _ONE, "acme/y": _TWO})
    assert both == commit_of({"acme/y": _TWO, "acme/x": _ONE})
    assert both not in (_ONE, _TWO, commit_of({"acme/x": _TWO, "acme/y": _TWO}))


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("around", ["{}", "'{}'", "({}), row 3", "x {} y"])
def test_secrets_of_urls_are_left_out(scheme: str, around: str) -> None:
    url = f"{scheme}://ann:pa:ss@example.org/a/t.jsonl?X-Amz-Signature=5ecre7&b=5ecre7"
    shown = redact(around.format(url))
    assert shown == around.format(f"{scheme}://example.org/a/t.jsonl")
    assert str(SourceError(around.format(url))) == shown


def test_hub_revisions_and_patterns_are_no_secrets() -> None:
    for text in (f"hf://datasets/acme/x@{_ONE}/a.jsonl", "gs://bkt/part-?.jsonl", "what? a@b"):
        assert redact(text) == text
