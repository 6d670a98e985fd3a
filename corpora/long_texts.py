"""documents -> tokens: a long text in pieces whose ids, end to end, are those of the whole text.

A byte-level BPE splits text by a regular expression before it merges, and no word of it goes from a letter to a sign,
a digit or a blank, or from a digit to anything else. Between these a text can be cut, and the tokenizer, which takes some
200 bytes of memory a character, sees little of it at a time.
"""

import json
import re
from collections.abc import Iterator

from tokenizers import Tokenizer

LONG = 100_000  # characters of a piece, and as many more as stand before the next place to cut
LETTER = "A-Za-z\u3041-\u3096\u30a1-\u30fa\u4e00-\u9fa5\uac00-\ud7a3"  # letters of every version of Unicode, in NFC as they are
DIGIT, BLANK = "0-9", " \\n\\t\\r"
SIGN = r"!-&(-/:-@\[-`{-~\u3001\u3002\uff01\uff0c\uff1a\uff1b\uff1f\u300c\u300d"  # not ', which letters may belong to
CUT = re.compile(
    f"(?<=[{LETTER}])(?=[{DIGIT}{BLANK}{SIGN}'])|(?<=[{DIGIT}])(?=[{LETTER}{BLANK}{SIGN}'])|(?<=[{SIGN}])(?=[{LETTER}{DIGIT}{BLANK}])"
)
HARMLESS = {"Digits", "Punctuation"}  # splits that look at one sign and its neighbours of the same kind


def pieces(text: str, cuttable: bool, long: int = LONG) -> Iterator[str]:
    """The text, cut where that changes no id; whole where it is short, or its tokenizer is not `cuttable`."""
    start = 0
    while cuttable and len(text) - start > long and (cut := CUT.search(text, start + long)):
        yield text[start : cut.start()]
        start = cut.start()
    yield text[start:] if start else text


def is_cuttable(tokenizer: Tokenizer) -> bool:
    """Whether a tokenizer splits as GPT-2's does (OPT's, Pythia's and those trained here do), so that cuts change nothing."""
    parts = json.loads(tokenizer.to_str())
    splits = _steps(parts["pre_tokenizer"], "pretokenizers")
    normal = _steps(parts["normalizer"], "normalizers")
    return (
        any(split["type"] == "ByteLevel" and split.get("use_regex", True) for split in splits)
        and all(split["type"] in HARMLESS | {"ByteLevel"} and not split.get("add_prefix_space") for split in splits)
        and all(step["type"] == "NFC" for step in normal)
        and parts["model"]["type"] == "BPE"
        and not any(_spans_blanks(token) for token in parts["added_tokens"] if not token["special"])
    )


def _steps(step: dict[str, object] | None, several: str) -> list[dict[str, object]]:
    if step is None:
        return []
    return list(step[several]) if step["type"] == "Sequence" else [step]  # type: ignore[call-overload]


def _spans_blanks(token: dict[str, object]) -> bool:
    """Whether an added token may hold a place to cut: all but those that are blanks alone."""
    return bool(token["lstrip"] or token["rstrip"] or CUT.search(f"{token['content']}"))
