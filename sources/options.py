"""What the user says about the source, checked as far as it can be without opening it."""

import dataclasses
import string
from typing import Any

from shardstream.shard_format.errors import OptionError

_ADDED_LATER = frozenset(("data_dir", "reader_option", "max_document_mb"))


@dataclasses.dataclass(frozen=True, kw_only=True)
class SourceOptions:
    r"""Names a stream of documents as `datasets.load_dataset(..., streaming=True)` would.

    Attributes:
        dataset: hub name, local directory, or a packaged format ("parquet", "json", "csv", "text")
            together with data_files.
        config: configuration (subset) of the dataset.
        split: split to read; several as in "train+validation", slices as in "train[:10%]".
        data_dir: directory inside the dataset to read from.
        data_files: paths, URLs or patterns; needed with a packaged format.
        revision: branch, tag or commit; what it points to at the start is pinned.
        text_column: column that holds the text of a document; "meta.text" for a nested one.
        text_template: joins columns instead, e.g. "{title}\n\n{text}".
        reader_option: settings of the format's reader as NAME=VALUE, e.g. "sep=\t",
            "encoding=latin-1", "sample_by=paragraph", "field=data".
        skip_documents: documents of the stream to leave out at its start.
        max_documents: documents to read after those, all where None: the first N, like `take(N)`.
        max_document_mb: MiB of text above which a document is a dead letter.
    """

    dataset: str
    config: str | None = None
    split: str = "train"
    data_dir: str | None = None
    data_files: tuple[str, ...] = ()
    revision: str | None = None
    text_column: str = "text"
    text_template: str | None = None
    reader_option: tuple[str, ...] = ()
    skip_documents: int = 0
    max_documents: int | None = None
    max_document_mb: int = 256

    def __post_init__(self) -> None:
        if self.skip_documents < 0:
            raise OptionError(f"skip_documents is {self.skip_documents}, expected 0 or more")
        if self.max_documents is not None and self.max_documents < 1:
            raise OptionError(f"max_documents is {self.max_documents}, expected at least 1")
        if self.max_document_mb < 1:
            raise OptionError(f"max_document_mb is {self.max_document_mb}, expected at least 1")
        if self.text_template is not None and not template_columns(self.text_template):
            raise OptionError(
                f"text_template is {self.text_template!r}, expected at least one {{column}}"
            )
        for option in self.reader_option:
            if not option.partition("=")[1] or not option.partition("=")[0].isidentifier():
                raise OptionError(f"reader_option is {option!r}, expected NAME=VALUE, e.g. sep=\\t")

    def as_dict(self) -> dict[str, Any]:
        """Returns the options by name; what was added later only where it is used.

        So that what earlier versions kept under these names is found again.
        """
        later = {field.name: field.default for field in dataclasses.fields(self)}
        return {
            name: value
            for name, value in dataclasses.asdict(self).items()
            if name not in _ADDED_LATER or value != later[name]
        }

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns a document's text is made of, each once, in order of use."""
        if self.text_template is None:
            return (self.text_column,)
        return tuple(dict.fromkeys(template_columns(self.text_template)))


def parse_template(template: str) -> list[tuple[str, str | None]]:
    """Returns (literal, column) pairs in order; column is None after a last literal."""
    try:
        parsed = list(string.Formatter().parse(template))
    except ValueError as error:
        raise OptionError(f"text_template is {template!r}: {error}") from error
    for _, column, spec, conversion in parsed:
        if column == "" or spec or conversion:
            raise OptionError(
                f"text_template is {template!r}, expected plain {{column}} fields; write "
                f"{{{{ and }}}} "
                "for literal braces"
            )
    return [(literal, column) for literal, column, _, _ in parsed]


def template_columns(template: str) -> list[str]:
    """Returns the columns a template names, in order, repeats kept."""
    return [column for _, column in parse_template(template) if column is not None]
