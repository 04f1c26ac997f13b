"""What a user may ask of packing, checked when it is asked.

Invariant: an instance that exists has one meaning; a combination that would silently do nothing
(an EOS kept where nothing is cut away) is refused. Frozen and hashable: it travels in Beam's
pickles and is written into the manifest.

`none` joins nothing and loses nothing: a document a sequence, one that is longer than L goes on in
further ones (what packing=False means in TRL and MaxText, without their truncation). Records hold
exactly L tokens, so it is `pad` with another default truncation. (Megatron and datatrove have
ragged unpacked files because they pack while reading.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from shardstream.shard_format.errors import OptionError
from shardstream.shard_format.messages import require_choice

PACKINGS: Final = ("concat", "pad", "best_fit", "none")
TRUNCATIONS: Final = ("auto", "cut", "split", "drop")
PAD_SIDES: Final = ("right", "left")

# What "auto" means: pad does what transformers' truncation=True does; the others lose no token.
_AUTO_TRUNCATION: Final = {"concat": "split", "pad": "cut", "best_fit": "split", "none": "split"}


@dataclass(frozen=True, kw_only=True)
class PackingOptions:
    """How documents become sequences of L tokens.

    Attributes:
        packing: `concat` puts documents end to end, whatever their length, and cuts every L
            tokens; padding only at the end of a shard. `pad` gives every document a sequence of
            its own. `best_fit` puts whole documents together so that least space is padded, and
            cuts only documents longer than L. `none` is `pad` that loses no token.
        sequence_length: L, tokens per sequence.
        truncation: what becomes of a document longer than L. `cut` keeps the first L tokens and
            counts the rest as truncated; `split` goes on in further sequences, so nothing is lost;
            `drop` leaves the document out and counts it. `auto` is `cut` for pad, and `split` for
            none, best_fit and concat (which knows nothing else).
        pad_side: where a sequence of `pad` is filled up; the others always pad on the right.
        keep_eos: with `cut`, the last token of a document that is cut is its EOS rather than its
            L-th token. (Its BOS is always kept: it is the first token.)
    """

    packing: str = "concat"
    sequence_length: int = 2048
    truncation: str = "auto"
    pad_side: str = "right"
    keep_eos: bool = False

    def __post_init__(self) -> None:
        require_choice("packing", self.packing, PACKINGS)
        require_choice("truncation", self.truncation, TRUNCATIONS)
        require_choice("pad_side", self.pad_side, PAD_SIDES)
        if not 1 <= self.sequence_length < 2**31:
            raise OptionError(
                f"sequence_length: expected 1 to 2**31 - 1 tokens, found {self.sequence_length}."
            )
        if self.packing == "concat" and self.truncation_rule != "split":
            raise OptionError(
                f"truncation: found {self.truncation!r} with packing 'concat', which cuts the "
                "stream of documents every L tokens and loses none. Leave truncation at 'auto', "
                "or choose packing 'pad' or 'best_fit'."
            )
        if self.pad_side == "left" and self.packing not in ("pad", "none"):
            raise OptionError(
                f"pad_side: found 'left' with packing {self.packing!r}, which pads only after "
                "the last document of a sequence. Use 'right', or packing 'pad'."
            )
        if self.keep_eos and self.truncation_rule != "cut":
            raise OptionError(
                f"keep_eos: found True with packing {self.packing!r} and truncation "
                f"{self.truncation_rule!r}, where no document loses its end. Leave keep_eos out, "
                "or choose packing 'pad' or 'best_fit' with truncation 'cut'."
            )
        if self.keep_eos and self.sequence_length < 2:
            raise OptionError(
                "keep_eos: found True with sequence_length 1, which would leave a document nothing "
                "but its EOS. Raise sequence_length to at least 2."
            )

    @property
    def truncation_rule(self) -> str:
        """The truncation in force: `auto` resolved to cut, split or drop."""
        return _AUTO_TRUNCATION[self.packing] if self.truncation == "auto" else self.truncation
