"""Texts made to break tokenizers: what an engine must get right before it may be trusted.

Invariant: the set depends on nothing but its arguments (a fixed seed), so a certificate made on one
machine means the same on another. Texts aim at the seams where implementations part: what a split
regex calls a letter, digit or space; runs and their ends; contractions; normalization of sequences;
special tokens next to text; long words.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence

import numpy as np

LONG_TEXT_CHARACTERS = 1_000_000

_SPACES = (
    " \t\n\r\v\f\x1c\x1d\x1e\x1f\x85\xa0\u1680\u2000\u2003\u200a\u2028\u2029\u202f\u205f\u3000"
)
_INVISIBLE = (
    "\u200b\u200c\u200d\u2060\ufeff\u00ad\u200e\u200f\u061c\u180e\ufe0f\u034f\x00\x7f\x80\x9f"
)
_EDGES = "\ue000\uf8ff\ufdd0\ufffd\ufffe\uffff\U00010000\U0001ffff\U000e0001\U0010ffff"
_CONTRACTIONS = ("'s", "'t", "'re", "'ve", "'m", "'ll", "'d", "'S", "'Re", "'LL", "'ſ", "’s", "'ſs")
_WORDS = tuple(
    """
    the Quick BROWN fox iPhone naïve café cafe\u0301 Ångstro\u0308m straße ẞ ﬁne İstanbul ıi ǅ
    Привет ёжик мир γειά ΣΊΣΥΦΟΣ שלום שָׁלוֹם مرحبا كِتَاب فارسی\u200cها हिन्दी क्षत्रिय বাংলা தமிழ்
    ไทย ພາສາ မြန်မာ ខ្មែរ བོད་སྐད አማርኛ ქართული 中文 漢字假名 日本語 ひらがな カタカナ ﾊﾝｶｸ
    ｆｕｌｌ 한국어 \u1112\u1161\u11ab ⅷ ½ ٣٤٥ १२३ 𝒜𝔹 𝟙𝟚 𐐀𐐨 𓀀 㐀 𠀀 x² H₂O № ™ €5 £3
    ¿qué? ‘q’ “q” – — …
    """.split()  # noqa: SIM905, a list of 70 quoted words reads worse
)
_EMOJI = (
    "😀",
    "👍🏽",
    "👨‍👩‍👧‍👦",
    "🏳️‍🌈",
    "🇩🇪🇫🇷",
    "1️⃣",
    "❤️",
    "\U0001f3f4\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",
)
_CODE = (
    "def f(x):\n    return x  # ok\n",
    "a+=b**2;c!=d//3",
    '{"k": [1, 2.50, -3e-7]}',
    "https://example.org/a_b?c=%20&d=#e",
    "\\n\\u0041\\x00\\ud800 %s &amp; &#x41;",
    "----==== ____ ....  ,,, !!!??",
    "1,234,567.89 0x1F 12345678901234567890",
    "\tif (a && b) {\r\n\t\tgo();\r\n\t}\r\n",
    "<s></s><unk><pad><0x0A>▁▁ Ġ Ċ",
)


def fixed_texts() -> list[str]:
    """Some 400 short texts, each aimed at one seam."""
    runs = [
        c * n for c in " \t\n\r\xa0\u3000aA0.'-=_é中😀\u0301▁" for n in (1, 2, 3, 4, 7, 16, 65, 300)
    ]
    between = [f"a{c}{d}b {c}{d} x{c}" for c in _SPACES for d in " \n\ta1.'"]
    around = [t.format(c) for c in _INVISIBLE + _EDGES for t in ("{}", "a{}b", " {} ", "{0}{0}1")]
    contractions = [f"I{c} we{c}x 'tis{c}" for c in _CONTRACTIONS] + ["'", "''s", "'s's", " 's"]
    digits = [("0123456789" * 12)[:n] + end for n in range(1, 24) for end in ("", "a", " ")]
    marks = ["e" + "\u0301" * n + "x" for n in range(1, 6)] + [
        "\u0301a",
        " \u0301",
        "1\u0301",
        "\n\u0301",
    ]
    lines = [
        "a\r\nb\r\n\r\nc",
        "a\n\n\n b",
        "  lead",
        "trail  ",
        "a \n \n b",
        "\r\r\n",
        "\n \n",
        " \n a",
    ]
    return [
        "",
        *runs,
        *between,
        *around,
        *contractions,
        *digits,
        *marks,
        *lines,
        *_words_and_code(),
    ]


def _words_and_code() -> Iterator[str]:
    for text in (*_WORDS, *_EMOJI, *_CODE):
        yield text
        yield f" {text}{text} {text}\n{text}!"
    yield " ".join(_WORDS)
    yield "".join(_WORDS + _EMOJI)


def block_texts() -> list[str]:
    """For every 128 code points, those Unicode assigns: as words, run together, spaced out."""
    texts = []
    for start in [*range(0, 0x20000, 0x80), *range(0x20000, 0x32000, 0x2000), 0xE0000, 0xE0100]:
        sample = [chr(c) for c in range(start, start + 0x80) if is_assigned(c)]
        if sample:
            every_third = "".join(sample[::3])
            texts += [
                "".join(sample),
                " ".join(sample),
                f"{every_third} 1{every_third}a\n{every_third}",
            ]
    return texts


def random_texts(count: int, *, seed: int, extra: Sequence[str] = ()) -> list[str]:
    """Random mixtures of all of the above, and of `extra` pieces, 1 to 40 pieces each.

    Args:
        count: number of texts.
        seed: fixes them.
        extra: pieces to mix in, such as a tokenizer's added tokens.
    """
    rng = np.random.default_rng(seed)
    pieces = [*_WORDS, *_EMOJI, *_CODE, *_CONTRACTIONS, *_SPACES, *_INVISIBLE, *"aZ09.,'\"()-/"]
    pieces += [" "] * len(pieces) + ["\n", "  ", "\n\n", "\r\n", "\t"] * 8 + [*extra]
    scripts = [(0x20, 0x7F), (0xA0, 0x250), (0x300, 0x370), (0x370, 0x530), (0x590, 0x700)]
    scripts += [(0x900, 0xE00), (0x1100, 0x1200), (0x2000, 0x2C00), (0x3040, 0x3100)]
    scripts += [(0x4E00, 0x9FFF), (0xAC00, 0xD7A4), (0x1F300, 0x1FA00)]
    alphabets = [[chr(c) for c in range(*bounds) if is_assigned(c)] for bounds in scripts]
    texts = []
    for index in range(count):
        length = int(rng.integers(1, 40))
        chosen = alphabets[index % len(alphabets)] if index % 2 else pieces
        words = [chosen[i] for i in rng.integers(0, len(chosen), length)]
        breaks = [
            pieces[i] if rng.random() < 0.3 else "" for i in rng.integers(0, len(pieces), length)
        ]
        texts.append("".join(w + b for w, b in zip(words, breaks, strict=True)))
    return texts


def long_texts() -> list[str]:
    """Without a space: 100,000 times one letter, and a megabyte of random letters."""
    letters = np.random.default_rng(0).integers(97, 123, LONG_TEXT_CHARACTERS, dtype=np.uint8)
    return ["a" * (LONG_TEXT_CHARACTERS // 10), letters.tobytes().decode("ascii")]


def literal_text(token: str) -> str:
    """One text that holds an added token's literal form at the start, in text, spaced, twice."""
    return f"{token}a{token}b {token} {token}{token}\n{token}\n 1{token}. {token}"


def near_literal_text(token: str) -> str:
    """One text with what is nearly an added token: cut, in another case, spread out."""
    return (
        f"{token[:-1]} {token[1:]} {token.upper()} {token.lower()} {' '.join(token)} {token[:-1]}"
    )


def code_point_text(code_point: int) -> str:
    """One text that holds a code point in every context an engine could treat differently.

    Between letters, after a space, between digits, after a newline, doubled; and, but for the
    100,000 ideographs, syllables and private characters (they have no case and no role in a split
    regex of their own), at the start, after an apostrophe (contraction) and after a capital.
    """
    character = chr(code_point)
    is_bulk = code_point >= 0x3400 and unicodedata.category(character) in ("Lo", "Co", "Cn")
    pattern = "a{0}b {0}1{0}2\n{0}{0}" if is_bulk else "{0}{0} {0}\n{0}a{0}b'{0}1{0}2A{0}"
    return pattern.replace("{0}", character)


def certified_range() -> np.ndarray:
    """The code points worth certifying, int64[k]: those text is made of.

    All of the basic plane, all assigned ones above it, emoji to come (U+1F000 to U+1FAFF), and the
    private ones icon fonts use. The 900,000 left are unassigned or private: a document that holds
    one takes the reference path, which is right and only slower.
    """
    above = range(0x10000, 0x110000)
    chosen = [c for c in range(0x10000) if not 0xD800 <= c < 0xE000]
    chosen += [c for c in above if 0x1F000 <= c < 0x1FB00 or (c < 0xF2000 and is_assigned(c))]
    return np.array(chosen, np.int64)


def is_assigned(code_point: int) -> bool:
    """Whether this Python's Unicode tables know the code point (private use counts)."""
    return unicodedata.category(chr(code_point)) not in ("Cn", "Cs")
