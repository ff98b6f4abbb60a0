"""Takes the readable sentences out of Markdown and reStructuredText; each occurs in its source but for its markup."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Collection

from threadline_worker.agents.offline.terms import stems
from threadline_worker.agents.words import is_unspaced

MIN_CHARS, MAX_CHARS = 30, 360
MIN_WORDS = 5
MIN_INTRODUCTION_WORDS = 8
MIN_LETTERS = 0.6

_FENCED = re.compile(r"^[ \t]*(```|~~~)[\s\S]*?(?:^[ \t]*\1[ \t]*$|\Z)", re.MULTILINE)
_COMMENT = re.compile(r"<!--[\s\S]*?-->")
_DIRECTIVE = re.compile(r"^[ \t]*\.\.[ \t].*(?:\n[ \t]+\S.*)*", re.MULTILINE)
_ASIDE = re.compile(
    r"^[ \t]*\.\.[ \t]+(?:note|warning|tip|hint|important|attention|caution)::(.*)\n"
    r"((?:[ \t]+\S.*(?:\n|\Z)|[ \t]*\n)*)",
    re.IGNORECASE | re.MULTILINE,
)
_LITERAL = re.compile(r"::[ \t]*\n(?:[ \t]*\n)*(?:[ \t]+\S.*(?:\n|\Z)|[ \t]*\n)+")
_DROPPED_LINE = re.compile(
    r"^(?:\s*\|.*|.*\|\s*|[\s=\-~^\"'*+#:|]*|\s*(?:>>>|\.\.\.|\$ |#).*|\s*\[[^\]]+\]:\s.*|(?: {4}|\t)(?![-*+•\d]).*)$"
)
_MARKUP: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"!\[[^\]]*\](?:\([^)]*\)|\[[^\]]*\])"), ""),  # images, first: badges are images inside links
    (re.compile(r"\[([^\[\]]*)\](?:\([^()\s]*(?:\([^()]*\)[^()\s]*)*(?:\s+\"[^\"]*\")?\)|\[[^\]]*\])"), r"\1"),
    (re.compile(r"</?[A-Za-z][^<>]*>"), ""),
    (re.compile(r"<(https?://[^<>]+)>"), r"\1"),
    (re.compile(r"`([^`<>]+?)\s*<[^`<>]+>`_{1,2}"), r"\1"),
    (re.compile(r":[a-z:]+:`~?([^`]+)`"), r"`\1`"),
    (re.compile(r"``([^`]+)``"), r"`\1`"),
    (re.compile(r"`([^`]+)`_{1,2}"), r"\1"),
    (re.compile(r"\[[#*^]?[\w-]{0,20}\]_"), ""),
    (re.compile(r"\|[\w -]+\|"), ""),
    (re.compile(r"\b([A-Za-z][\w.-]*)_(?=[\s.,;:)]|$)"), r"\1"),
    (re.compile(r"(?<![\w*])\*{1,3}(?=\S)([^*]+?)(?<=\S)\*{1,3}(?![\w*])"), r"\1"),
    (re.compile(r"(?<![\w_])_{1,2}(?=\S)([^_]+?)(?<=\S)_{1,2}(?![\w_])"), r"\1"),
)
_GAP = re.compile(r"\s+([.,;:!?](?:\s|$))")
_QUOTE = re.compile(r"^\s*>(?!>>)\s?(?:\[!\w+\])?")
_ITEM = re.compile(r"^\s*(?:[-*+•]|\d{1,2}[.)])\s+(?:\[[ xX]\]\s+)?")
_END = re.compile(r"(?<=[.!?…])[\"')\]]*\s+(?=[\"'(\[`]?[^\W_a-z])|(?<=[。！？])")
_NO_END = re.compile(r"(?:\b(?:e\.g|i\.e|etc|vs|cf|incl|approx|bzw|z\.B|Dr|Mr|Mrs|No|St)|\b[A-Z])\.[\"')\]]*$")
_LEADS_ON = re.compile(
    r"\b(?:by|with|as|to|using|follow\w*|like|via|is|are|of|for|in|code|example|run|use|this|these)\s*:$", re.IGNORECASE
)
_FINISHED = re.compile(r"[.!?。！？…][\"')\]`]*$")
_POINTING = re.compile(
    r"(?:this|these|that|those|it|its|they|their|he|she|such|otherwise|alternatively|however|also|but|and|or|so|then|thus"
    r"|instead|here|there|additionally|furthermore|moreover|similarly|likewise|therefore|finally|now|note|in addition"
    r"|for example|for instance|in this|both|dies\w*|das|es|sie)\b",
    re.IGNORECASE,
)
_CODE = re.compile(r"^[ \t]*```[\w{}. -]*\n(?P<code>[\s\S]*?)^[ \t]*```[ \t]*$", re.MULTILINE)
_LITERAL_CODE = re.compile(
    r"(?:::|^[ \t]*\.\.[ \t]+code(?:-block)?::.*)[ \t]*\n(?:[ \t]*\n)+(?P<code>(?:[ \t]+\S.*(?:\n|\Z)|[ \t]*\n)+)",
    re.MULTILINE,
)
_BOILERPLATE = re.compile(
    r"\b(?:pip3? install|pipx|uv add|conda|apt-get|brew|npm|install(?:ed|ing|ation)?|quick ?start"
    r"|licen[cs]ed?|licen[cs]es|copyright|all rights reserved|warrant\w*|badges?|changelog|release notes"
    r"|contribut\w+|pull requests?|issue tracker|related issues|code of conduct"
    r"|sponsor\w*|donat\w+|discord|slack|twitter|newsletter|click here|check out|take a look|feel free|you might want"
    r"|please (?:see|read|visit|refer|check|open|report|add|note|use)|see (?:the|also|our)"
    r"|would like to thank|read the docs"
    r"|(?:more|full|further) (?:details|information|documentation)|documentation (?:is|can|for))\b"
    r"|\B@\w+",
    re.IGNORECASE,
)


def sentences(text: str) -> list[str]:
    """Give the sentences of a passage in order: no code, tables, badges, headings or link lists."""
    prose = _COMMENT.sub("", _FENCED.sub("", _with_asides(text)))
    prose = _LITERAL.sub(":\n\n", _DIRECTIVE.sub("", prose))
    found = (sentence for paragraph in _paragraphs(prose) for sentence in _split(_clean(paragraph)))
    return [sentence for sentence in found if _readable(sentence)]


def leans_on_another(sentence: str) -> bool:
    """Tell whether a sentence begins by pointing at one before it, so that it says little alone."""
    return bool(_POINTING.match(sentence))


def code_blocks(text: str) -> list[str]:
    """Give the fenced and literal code blocks of a passage, without their fences and indentation."""
    fenced = [match["code"] for match in _CODE.finditer(text) if match["code"]]
    literal = [match["code"] for match in _LITERAL_CODE.finditer(_FENCED.sub("", _with_asides(text)))]
    return [
        block for block in (textwrap.dedent(code).strip("\n") for code in [*fenced, *literal]) if "```" not in block
    ]


def is_boilerplate(sentence: str, asked: Collection[str]) -> bool:
    """Tell whether a sentence is about getting, licensing or promoting something, unless that is asked for.

    ``asked`` are the stems of the question's terms.
    """
    return any(not set(stems(match[0])).intersection(asked) for match in _BOILERPLATE.finditer(sentence))


def _with_asides(text: str) -> str:
    """Turn notes and warnings of reStructuredText into paragraphs; all its other directives are no prose."""
    return _ASIDE.sub(lambda match: f"{match[1].strip()}\n{textwrap.dedent(match[2])}", text)


def _paragraphs(prose: str) -> list[str]:
    """Join the lines of each paragraph and of each list item."""
    paragraphs: list[list[str]] = [[]]
    for line in (_QUOTE.sub("", line) for line in prose.splitlines()):
        if not line.strip() or _DROPPED_LINE.match(line):
            paragraphs.append([])
        elif _ITEM.match(line):
            paragraphs.append([_ITEM.sub("", line)])
        else:
            paragraphs[-1].append(line.strip())
    return [" ".join(lines) for lines in paragraphs if lines]


def _clean(paragraph: str) -> str:
    for pattern, replacement in _MARKUP:
        paragraph = pattern.sub(replacement, paragraph)
    return _GAP.sub(r"\1", " ".join(paragraph.split()))


def _split(paragraph: str) -> list[str]:
    pieces: list[str] = []
    for piece in _END.split(paragraph):
        if pieces and _NO_END.search(pieces[-1]):
            pieces[-1] = f"{pieces[-1]} {piece}"
        else:
            pieces.append(piece)
    if len(pieces[-1].split()) >= MIN_INTRODUCTION_WORDS and not _LEADS_ON.search(pieces[-1]):
        pieces[-1] = re.sub(r":$", ".", pieces[-1].strip())  # what follows is code, and the sentence stands without it
    return [piece.strip() for piece in pieces]


def _readable(sentence: str) -> bool:
    letters = sum(character.isalpha() for character in sentence)
    dense = is_unspaced(sentence)  # such scripts say more with fewer signs
    long_enough = len(sentence) >= (MIN_CHARS // 3 if dense else MIN_CHARS)
    wordy = dense or len(sentence.split()) >= MIN_WORDS
    whole = bool(_FINISHED.search(sentence)) and not sentence[:1].islower()
    return long_enough and len(sentence) <= MAX_CHARS and wordy and whole and letters >= MIN_LETTERS * len(sentence)
