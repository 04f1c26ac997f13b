import pytest

from shardstream.shard_format import naming


@pytest.mark.parametrize(
    ("parts", "name"),
    [
        (("train", 0, 64), "train-00000-of-00064.array_record"),
        (("validation", 7, 123456), "validation-00007-of-123456.array_record"),
        (("train", 12, None), "train-00012.array_record"),
    ],
)
def test_shard_name(parts: tuple, name: str) -> None:
    assert naming.shard_name(*parts) == name


def test_shard_name_refuses_index_outside() -> None:
    with pytest.raises(ValueError, match="expected 0 to 3"):
        naming.shard_name("train", 4, 4)
