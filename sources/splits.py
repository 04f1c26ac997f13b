"""Split expressions: names, sums of them and slices, as `load_dataset` without streaming has them.

train · train+validation · all · train[:10%] · train[1000:2000] · train[-5%:]+test[:100]
"""

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence

from shardstream.sources.errors import SourceError

_PIECE = re.compile(
    r"(?P<name>[\w./-]+?)(\[(?P<begin>-?[\d_]+%?)?:(?P<end>-?[\d_]+%?)?\])?"
    r"(\((?P<rounding>closest|pct1_dropremainder)\))?"
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SplitPiece:
    """A split or a slice of one.

    Attributes:
        name: of the split.
        begin: "10", "-10" or "10%"; None for its first row.
        end: likewise; None for after its last row.
        rounding: of per cents, "closest" or "pct1_dropremainder".
    """

    name: str
    begin: str | None = None
    end: str | None = None
    rounding: str = "closest"

    @property
    def is_sliced(self) -> bool:
        """Whether rows are left out."""
        return self.begin is not None or self.end is not None

    @property
    def needs_length(self) -> bool:
        """Whether the slice's rows depend on how many the split has."""
        bounds = [bound for bound in (self.begin, self.end) if bound is not None]
        return any(bound.startswith("-") or bound.endswith("%") for bound in bounds)

    def rows(self, length: Callable[[], int]) -> tuple[int, int | None]:
        """Returns the slice's first row and the one after its last, None for the split's end.

        Args:
            length: returns the rows of the split; asked only where they matter.
        """
        if not self.needs_length:
            end = None if self.end is None else int(self.end)
            return int(self.begin or 0), end
        total = length()
        if self.rounding == "pct1_dropremainder" and total < 100:
            raise SourceError(
                f"split {self.name!r} has {total} rows, expected at least 100 for per cents "
                "rounded by pct1_dropremainder. Leave the rounding out."
            )
        begin = 0 if self.begin is None else self._absolute(self.begin, total)
        end = total if self.end is None else self._absolute(self.end, total)
        begin, end = (bound + total if bound < 0 else bound for bound in (begin, end))
        return max(0, min(begin, total)), max(0, min(end, total))

    def _absolute(self, bound: str, total: int) -> int:
        if not bound.endswith("%"):
            return int(bound)
        percent = int(bound[:-1])
        if self.rounding == "pct1_dropremainder":
            return percent * (total // 100)
        return round(percent * total / 100.0)


def parse_split(split: str, available: Sequence[str], dataset: str) -> list[SplitPiece]:
    """Returns the pieces of a split expression, in order.

    Raises:
        SourceError: it can't be read, or names a split that isn't there.
    """
    if split in available:
        return [SplitPiece(name=split)]
    if split == "all" and available:
        return [SplitPiece(name=name) for name in available]
    pieces = []
    for text in split.split("+"):
        match = _PIECE.fullmatch(text.strip())
        if match is None:
            raise SourceError(
                f"split {split!r}: can't read {text.strip()!r}, expected a name, or a slice such "
                "as train[:10%] or train[1000:2000], joined by +. Give --split."
            )
        if match["name"] not in available:
            raise SourceError(
                f"dataset {dataset!r} has no split {match['name']!r}, expected one of "
                f"{', '.join(sorted(available))}. Give --split."
            )
        pieces.append(
            SplitPiece(
                name=match["name"],
                begin=match["begin"],
                end=match["end"],
                rounding=match["rounding"] or "closest",
            )
        )
    return pieces


def join_files(
    pieces: Sequence[SplitPiece], urls: Mapping[str, Sequence[str]]
) -> tuple[list[str], list[tuple[int, int]]]:
    """Returns the files of all pieces in order, and of each piece its first and the one after."""
    files: list[str] = []
    runs = []
    for piece in pieces:
        runs.append((len(files), len(files) + len(urls[piece.name])))
        files += urls[piece.name]
    return files, runs
