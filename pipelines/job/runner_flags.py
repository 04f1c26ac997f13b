"""Which flags a runner knows, so that no flag and no word of a command line vanishes.

Beam only logs what it can't parse. Here a flag is ours, or registered with Beam's PipelineOptions,
or known to the engine's job server, which tells Beam only when it is running; everything else is
refused with the nearest names. What stands after `--` is passed on unchecked.
"""

import argparse
import difflib
import re
from collections.abc import Sequence

from shardstream.pipelines.job.engine_options import OF_RUNNER
from shardstream.pipelines.job.flags import FlagParser
from shardstream.shard_format.errors import OptionError

_NUM_NEAREST = 3
_LEAST_LIKENESS = 0.6  # difflib's ratio; `--max_docs` and `--max_documents` have 0.76


def check_flags(words: Sequence[str], own: Sequence[str]) -> None:
    """Raises OptionError for a flag that neither this command nor the runner knows.

    Args:
        words: the command line, without what stands after `--`.
        own: the command's flags, with their dashes.
    """
    foreign = [name for name in map(_flag_name, words) if name and name not in own]
    if not foreign:
        return
    known = runner_parser(words).names
    for name in foreign:
        if name not in known:
            raise OptionError(f"unknown flag {name}; {_advice(name, own, known)}")


def check_runner_words(words: Sequence[str]) -> None:
    """Raises OptionError where words, which aren't ours, hold a bad value or belong to no flag."""
    if not words:
        return
    try:
        _, stray = runner_parser(words).parse_known_args(list(words))
    except OptionError:
        raise
    except (TypeError, ValueError) as error:  # of a flag's own way to read its value
        raise OptionError(f"a flag of the runner has a value that isn't one: {error}") from error
    if stray:
        raise OptionError(
            f"unexpected word {stray[0]!r}, expected a flag; a value with spaces needs quotes"
        )


def runner_parser(words: Sequence[str]) -> FlagParser:
    """Returns a parser of Beam's registered flags and of those that the runner in words knows."""
    from apache_beam.options.pipeline_options import PipelineOptions

    registered: list[argparse.ArgumentParser] = []
    PipelineOptions([]).get_all_options(add_extra_args_fn=registered.append)
    parser = FlagParser(parents=registered, allow_abbrev=False, add_help=False)
    taken = set(parser.names)  # of a later Beam, which may register more
    values, switches = OF_RUNNER.get(_runner_of(words), ((), ()))
    for names, action in ((values, "store"), (switches, "store_true")):
        for name in names:
            if f"--{name}" not in taken:
                parser.add_argument(f"--{name}", action=action)
    return parser


def nearest_names(
    name: str, own: Sequence[str], known: Sequence[str], least_likeness: float = _LEAST_LIKENESS
) -> list[str]:
    """Returns the flags that a name may be a slip of, the likeliest first, at most three.

    First the flag that it is with other dashes, then flags that begin with it, then flags spelt
    like it; ours before the runner's.

    Args:
        name: with its dashes.
        own: the command's flags.
        known: the runner's flags.
        least_likeness: of a flag that is spelt like it, 0 to 1 as difflib counts.
    """
    wanted = _plain(name)
    found: list[str] = []
    for names in (own, known):
        of_plain = {_plain(each): each for each in names}
        found += [of_plain[wanted]] if wanted in of_plain else []
        found += sorted((each for each in names if _plain(each).startswith(wanted)), key=len)
        close = difflib.get_close_matches(wanted, of_plain, _NUM_NEAREST, least_likeness)
        found += [of_plain[each] for each in close]
        if found:
            break
    return list(dict.fromkeys(found))[:_NUM_NEAREST]


def _runner_of(words: Sequence[str]) -> str:
    """Returns the name of the runner in words, in Beam's spelling where it is one of Beam's."""
    from apache_beam.options.pipeline_options import StandardOptions

    from shardstream.pipelines.job.runners import known_runner

    parser = FlagParser(allow_abbrev=False, add_help=False)
    parser.add_argument("--runner", default=StandardOptions.DEFAULT_RUNNER)
    found, _ = parser.parse_known_args(list(words))
    return known_runner(found.runner)


def _advice(name: str, own: Sequence[str], known: Sequence[str]) -> str:
    names = nearest_names(name, own, known)
    if not names:
        nearest = ", ".join(nearest_names(name, own, known, least_likeness=0))
        return f"the nearest are {nearest}. A flag that only the runner knows goes after --."
    *others, last = names
    return f"did you mean {', '.join(others)}{' or ' if others else ''}{last}?"


def _flag_name(word: str) -> str | None:
    """Returns the flag that a word names, None for a value, a negative number included."""
    return word.split("=", 1)[0] if re.match(r"-[^\d.]", word) else None


def _plain(name: str) -> str:
    return name.lstrip("-").replace("-", "_").lower()
