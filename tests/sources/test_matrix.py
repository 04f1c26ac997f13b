"""Format × defect × place: every row ends as the text of `load_dataset`, or as a dead letter."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from shardstream.sources.options import SourceOptions
from tests.sources.defects import DEFECTS, FORMATS, OF_A_ROW, Dead, Format, good_rows
from tests.sources.reading import outcomes, rows_of_load_dataset

NUM_FILES, NUM_ROWS = 3, 5
# A number among texts: `datasets` then writes all texts of the chunk as JSON, in quotes.
_JSON_IN_JSON = ("one_number", "one_list")


def _cases() -> Iterator[tuple[str, str, int, int]]:
    """Yields (format, defect, file, row) for all that there are."""
    for form, defect in itertools.product(FORMATS, DEFECTS):
        is_packed = FORMATS[form].suffix.endswith((".gz", ".zst", ".bz2", ".xz"))
        files = [1] if is_packed else range(NUM_FILES)
        rows = [0, NUM_ROWS - 1] if defect in OF_A_ROW else [0]
        for file, row in itertools.product(files, rows):
            if DEFECTS[defect](FORMATS[form], good_rows(file, NUM_ROWS), row) is not None:
                yield form, defect, file, row


def _write(folder: Path, form: Format, defect: str, file: int, row: int) -> tuple[list, list]:
    """Writes the files of a case; returns their paths and what is expected of each row."""
    paths, expected = [], []
    for index in range(NUM_FILES):
        kind = defect if index == file else "none"
        made = DEFECTS[kind](form, good_rows(index, NUM_ROWS), row)
        assert made is not None
        path = folder / f"{index}{form.suffix}"
        path.write_bytes(form.pack(made.data))
        paths.append(str(path))
        expected.append(made.expected)
    return paths, expected


@pytest.mark.parametrize(("form", "defect", "file", "row"), list(_cases()))
def test_each_row_is_a_text_or_a_dead_letter(
    tmp_path: Path, form: str, defect: str, file: int, row: int
) -> None:
    paths, expected = _write(tmp_path, FORMATS[form], defect, file, row)
    column = "txt" if form == "tar" else "text"
    options = SourceOptions(
        dataset=FORMATS[form].module,
        data_files=tuple(paths),
        text_column=column,
        reader_option=FORMATS[form].options,
    )
    wanted = {
        (index, number): ("dead", item.reason) if isinstance(item, Dead) else ("text", item)
        for index, items in enumerate(expected)
        for number, item in enumerate(items)
    }
    found = outcomes(options, block_bytes=64, partition_bytes=1)
    assert found == wanted
    assert outcomes(options) == wanted

    settings = {"sep": "\t"} if form == "tsv" else {}
    rows = rows_of_load_dataset(FORMATS[form].module, data_files=paths, **settings)
    if rows is None:
        return
    assert len(rows) == len(wanted)
    for (place, (kind, text)), theirs in zip(sorted(wanted.items()), rows, strict=True):
        value = theirs.get(column)
        if isinstance(value, str) and defect not in _JSON_IN_JSON:
            assert (kind, text) == ("text", value), place
        elif column in theirs and value is None:
            assert kind == "dead", place
