import pytest

from shardstream.shard_format.errors import OptionError
from shardstream.shard_format.messages import first_line, require_choice


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("no such file"), "no such file"),
        (ValueError("\n  two\tlines \r\nof text"), "two lines"),
        (ValueError("denied: <Error>\n\nDebug source:\nGeneric { }"), "denied: <Error>"),
        (ValueError(), "ValueError"),
        (ValueError(" \n "), "ValueError"),
        ("a plain text", "a plain text"),
        (ValueError("x" * 1000), "x" * 500),
    ],
)
def test_first_line_is_one_short_line_that_says_something(error: object, line: str) -> None:
    assert first_line(error) == line


def test_require_choice_names_option_value_and_choices() -> None:
    require_choice("shuffle", "none", ("global", "none"))
    require_choice("compression", "zstd", {"none": 0, "zstd": 1})
    with pytest.raises(OptionError, match=r"^shuffle is 'full', expected one of global, none$"):
        require_choice("shuffle", "full", ("global", "none"))
    with pytest.raises(ValueError, match="stop is None, expected one of first, all"):
        require_choice("stop", None, iter(("first", "all")))
