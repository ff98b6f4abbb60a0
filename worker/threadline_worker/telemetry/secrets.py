"""No secret of this process' environment, and nothing that looks like one, is left in a text that went through here."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Final
from urllib.parse import quote, unquote

__all__ = ["SECRET", "Secrets", "names_a_secret", "without_ours"]

#: What stands in a line where a secret was.
SECRET: Final = "[secret]"  # noqa: S105 - the word, not a secret
#: Shorter values cannot be told from words; as a password inside a URL they go all the same.
_LEAST: Final = 6
_NAME: Final = re.compile(
    r"pass(?:word|wd|phrase)?s?$|secret|token$|(?:api|access|private|signing|encryption)_?keys?$|(?:^|_)keys$"
    r"|authorization|cookie|credential|dsn$|_key$|(?:^|_)headers$",
    re.IGNORECASE,
)
_URL_PASSWORD: Final = re.compile(r"://([^\s/?#@:]{0,256}):([^\s/?#]{1,512})@([^\s/?#@:]*)[^\s/?#]*/?([^\s?#]*)")
_CONNINFO_PASSWORD: Final = re.compile(r"(?i)(?:\b|_)password\s*=\s*(?:'((?:[^'\\]|\\.){1,512})'|([^\s&']{1,512}))")
#: Every repetition is bounded: a line is anyone's text, and must not cost more than its length.
_LOOKS_SECRET: Final = re.compile(
    r"""
    (?P<url>://[^\s/?\#@:"']{0,256}+:)[^\s/?\#"']{1,512}(?=@)
    | (?P<pair>(?:passw(?:or)?d|\bpwd|passphrase|secret[\w-]{0,20}|api[_-]?key|access[_-]?key|private[_-]?key|token
        |authorization|cookie|signature|\bsig)\\{0,3}["']?\s{0,3}[=:]\s{0,3}\\{0,3}["']?)
        (?:(?<=")[^"\\\n]{1,4096}+(?=")|(?<=')[^'\\\n]{1,4096}+(?=')
        |(?:(?:bearer|basic)\s{1,3})?[^\s"',;&}\])\\]{1,4096}+)
    | (?P<scheme>\b(?:bearer|basic)\s{1,3})[\w.~+/=-]{8,4096}+
    | \b(?:sk|pk|rk|tvly|lsv2|xox[abprs])[-_][\w-]{12,512}+
    | \bwhsec_[\w+/=-]{8,512}+
    | (?P<block>-----BEGIN\ [A-Z\ ]{0,30}PRIVATE\ KEY-----)[^-]{1,8192}+
    | \bhf_\w{20,255} | \bglpat-[\w-]{20,255}
    | \bgh[pousr]_\w{20,255} | \bgithub_pat_\w{20,255}
    | \bAKIA[0-9A-Z]{16}\b | \bAIza[\w-]{35}
    | \beyJ[\w-]{8,512}+\.[\w-]{4,4096}+\.[\w-]{4,1024}+
    """,
    re.IGNORECASE | re.VERBOSE,
)
#: A value that is replaced by another one is seen so much later at most; one more variable at once.
_LOOK_SECONDS: Final = 1.0
#: Texts up to so many characters are remembered, so many of them.
_SHORT: Final = 80
_REMEMBERED: Final = 2048
#: Without one of them the pattern matches nothing: nearly all texts are told apart by this, in a microsecond.
_MARKS: Final = (
    *(
        "://",
        "passw",
        "pwd",
        "passphrase",
        "sig",
        "hf_",
        "glpat",
        "secret",
        "key",
        "token",
        "authorization",
        "cookie",
        "bearer",
        "basic",
    ),
    *("sk-", "sk_", "pk-", "pk_", "rk-", "rk_", "tvly", "lsv2", "xox", "whsec_", "gh", "akia", "aiza", "eyj"),
)


def names_a_secret(name: str) -> bool:
    """Whether a field or a variable of this name holds a secret."""
    return _NAME.search(name.replace("-", "_")) is not None


class Secrets:
    """The values are those of `env`, by default the environment; `look()` sees what was added, or replaced."""

    def __init__(self, env: Mapping[str, str] = os.environ, clock: Callable[[], float] = time.monotonic) -> None:
        self._env = env
        self._clock = clock
        self._seen: dict[str, str] | None = None
        self._look_again = float("-inf")
        self._forms: set[str] = set()
        self._values: list[str] = []
        #: Names and ids come again with each line of a job.
        self._clean_before: dict[str, str] = {}

    @property
    def longest(self) -> int:
        """The characters of the longest secret."""
        return len(self._values[0]) if self._values else 0

    def look(self) -> bool:
        """Before each line: whether there are other secrets now. An agent's .env file is read when it is loaded."""
        now = self._clock()
        if self._seen is not None and len(self._env) == len(self._seen) and now < self._look_again:
            return False
        self._look_again = now + _LOOK_SECONDS
        if (env := dict(self._env)) == self._seen:
            return False
        self._seen = env
        # Those before stay for one more change: what runs with them may still say them.
        forms, before = {form for value in _values(env) for form in _forms(value)}, self._forms
        self._forms = forms
        self._values = sorted(forms | before, key=len, reverse=True)  # a secret may be a part of another one
        self._clean_before.clear()
        return True

    def without(self, text: str) -> str:
        """The text with `[secret]` where one stood."""
        if len(text) > _SHORT:
            return self._clean(text)
        if (clean := self._clean_before.get(text)) is None:
            if len(self._clean_before) >= _REMEMBERED:
                self._clean_before.clear()
            clean = self._clean_before[text] = self._clean(text)
        return clean

    def without_known(self, text: str) -> str:
        """The text without those of the environment; what only looks like a secret stays."""
        for value in self._values:
            if value in text:
                text = text.replace(value, SECRET)
        return text

    def _clean(self, text: str) -> str:
        text = self.without_known(text)
        lowered = text.lower()
        return _LOOKS_SECRET.sub(_kept, text) if any(mark in lowered for mark in _MARKS) else text


def without_ours(text: str) -> str:
    """For the words of an error that are kept for whoever asked for a job: no secret of this process is theirs."""
    secrets = Secrets()
    secrets.look()
    return secrets.without_known(text)


def _kept(match: re.Match[str]) -> str:
    return f"{match['url'] or match['pair'] or match['scheme'] or match['block'] or ''}{SECRET}"


def _values(env: Mapping[str, str]) -> Iterator[str]:
    for name, text in env.items():
        if names_a_secret(name):
            yield from _parts(text)
        for quoted, plain in _CONNINFO_PASSWORD.findall(text):
            yield re.sub(r"\\(.)", r"\1", quoted) or unquote(plain)  # of libpq, or in a URL's query
        for user, password, host, path in _URL_PASSWORD.findall(text):
            # postgres:postgres@…/postgres is no secret, and the word is needed in every second line.
            if password not in {user, host, path}:
                yield password
                yield unquote(password)


def _parts(text: str) -> Iterator[str]:
    """A variable's value, and each key of `id:key,id:key`, of `name=scheme key`, or of several lines."""
    yield text
    for entry in re.split(r"[,\n]", text):
        for part in (entry, entry.partition(":")[2], entry.partition("=")[2], entry.rpartition(" ")[2]):
            yield part.strip()


def _forms(value: str) -> Iterator[str]:
    """The value as it may stand in a line: plain, in a URL, inside JSON or a repr."""
    if len(value) < _LEAST or value.isdecimal():
        return
    yield from (value, quote(value, safe=""), quote(value), repr(value)[1:-1])
    yield repr(f"'\"{value}")[4:-1]  # of a longer text, which has both quotes
    yield from (json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1])
