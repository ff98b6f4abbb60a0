"""No secret leaves in a log line, whoever logs it and however; nor a word of users unless it is asked for."""

from __future__ import annotations

import json
import logging
import sys
import threading
import warnings
from collections.abc import Callable
from functools import cache
from typing import Any
from urllib.parse import quote

import pytest
import structlog
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from support.log_lines import LogLines, log_lines
from threadline_worker.agents.errors import AgentConfigError, FactoryError
from threadline_worker.outcome import describe
from threadline_worker.telemetry.redaction import MOST_CHARACTERS
from threadline_worker.telemetry.secrets import Secrets

QUICK = settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))
CANARIES = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), min_size=8, max_size=40).filter(
    lambda text: not text.isdecimal() and text.strip() == text and not set(text[:8] + text[-8:]) <= set("[secret] …")
)
WORDS = "my doctor says that I"


class Thing:
    """An object of anybody's, with a secret in its words."""

    def __init__(self, secret: str) -> None:
        self._secret = secret

    def __str__(self) -> str:
        return f"<thing {self._secret}>"

    __repr__ = __str__


class Rude:
    def __str__(self) -> str:
        raise ValueError(WORDS)

    __repr__ = __str__


def raising(secret: str) -> None:
    try:
        try:
            raise KeyError(secret)  # noqa: TRY301 - with a way of its own
        except KeyError as error:
            error.add_note(f"note {secret}")
            raise ExceptionGroup(f"several {secret}", [ValueError(secret), OSError(2, secret)]) from error
    except ExceptionGroup:
        structlog.get_logger("threadline_worker.x").exception("job.failed")
        logging.getLogger("agent").exception("it failed: %s", secret)
        logging.getLogger("agent").error("again", exc_info=True, stack_info=True)  # noqa: G201 - the other way


def in_a_thread(secret: str) -> None:
    def fail() -> None:
        raise RuntimeError(secret)

    thread = threading.Thread(target=fail, name=f"thread {secret}")
    thread.start()
    thread.join()


def warn(secret: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = HOOK[0]  # catch_warnings has put the one before it back
        warnings.warn(f"beware of {secret}", stacklevel=1)


def bound(secret: str) -> None:
    with structlog.contextvars.bound_contextvars(thread_id=secret):
        logging.getLogger("agent").warning("in a context")


HOOK: list[Any] = [None]
ours, theirs = structlog.get_logger("threadline_worker.x"), logging.getLogger("agent")
#: Every way into a line.
WAYS: list[Callable[[str], object]] = [
    lambda secret: ours.info(f"event {secret}"),
    lambda secret: ours.info("event", error=f"x{secret}y"),
    lambda secret: ours.info("event", deep={"a": [{"b": (secret, {secret})}], secret: 1}, **{f"key {secret}": 1}),
    lambda secret: ours.info("event", what=Thing(secret), raw=secret.encode(), view=memoryview(secret.encode())),
    lambda secret: ours.info("event", asked=repr({"x": [secret]}), body=json.dumps({"x": secret})),
    lambda secret: ours.info("event", asked=json.dumps({"x": secret}, ensure_ascii=False), at=quote(secret)),
    lambda secret: ours.info("event", both=repr(f"'\" {secret}")),
    lambda secret: theirs.info("%s and %r and %r", secret, secret, {"x": secret}),
    lambda secret: theirs.info("%(x)s", {"x": secret}),
    lambda secret: theirs.info(f"before {secret} behind"),
    lambda secret: theirs.info("%d", secret),  # logging's own words about it would show the argument
    lambda secret: logging.getLogger(f"of {secret}").warning("x"),
    lambda secret: logging.getLogger("openai").debug("Request options: %s", {"headers": secret}),
    lambda secret: ours.info("event", url=f"redis://user:{quote(secret, safe='')}@host:6379/0"),
    lambda secret: ours.info("event", told="a" * 8180 + secret + "b" * 9000),
    lambda secret: ours.info("event", error=(secret + " ") * 1800),
    lambda secret: ours.info("event", error="a" * 16_380 + secret),
    lambda secret: ours.info("event", error=(secret + " ") * 1600 + "a" * 9000 + secret),
    raising,
    in_a_thread,
    warn,
    bound,
]


@cache
def lines_without(form: str) -> str:
    """The same lines of another secret."""
    with log_lines("debug", form, env={"SOME_API_KEY": "\N{KEY}" * 8}) as lines:
        HOOK[0] = warnings.showwarning
        for way in WAYS:
            way("\N{KEY}" * 8)
    return lines.text


@QUICK
@given(secret=CANARIES, content=st.booleans(), form=st.sampled_from(["json", "console"]))
@example(secret="p'a\"s\\s/w@rd:%", content=True, form="json")
@example(secret="threading", content=False, form="json")
@example(secret="pässwörd-\U0001f511-x", content=False, form="console")
def test_a_secret_of_the_environment_is_in_no_line(*, secret: str, content: bool, form: str) -> None:
    env = {"SOME_API_KEY": secret}
    with log_lines("debug", form, content=content, env=env) as lines:
        HOOK[0] = warnings.showwarning
        for way in WAYS:
            way(secret)
        assert lines.text.count("\n") > len(WAYS)
        forms = {secret, json.dumps(secret)[1:-1], repr(secret)[1:-1], quote(secret, safe="")}
        decoded = json.dumps(lines.entries, ensure_ascii=False) if form == "json" else ""
        for told in forms:
            assert told not in lines.text
            assert told not in decoded
            # Nor a half of it, where something was cut; unless every line has that anyway.
            assert told[:8] not in lines.text or told[:8] in lines_without(form)
        assert all(len(line) <= MOST_CHARACTERS for line in lines.text.splitlines() if form == "json")


@pytest.mark.parametrize(
    ("env", "secret"),
    [
        ({"REDIS_URL": "redis://default:s3cr3t-redis@host/0"}, "s3cr3t-redis"),
        ({"DATABASE_URL": "postgresql://me:p%40ss-word@a:1,b:2/db"}, "p@ss-word"),
        ({"DATABASE_URL": "host=a password=conninfo-pass user=b"}, "conninfo-pass"),
        ({"DATABASE_URL": r"host=a password='a con\'ninfo pass' user=b"}, "a con'ninfo pass"),
        ({"REDIS_URL": "redis://:p@ss@word@host/0"}, "p@ss@word"),
        ({"REDIS_URL": "redis+sentinel://h:1/primary/0?sentinel_password=senti%21nel"}, "senti!nel"),
        ({"THREADLINE_ENCRYPTION_KEYS": "k2:bmV3LWtleQ==,k1:b2xkLWtleQ=="}, "b2xkLWtleQ=="),
        ({"THREADLINE_WEBHOOK_SECRETS": "whsec_b25lMQ==,whsec_dHdvMg=="}, "whsec_dHdvMg=="),
        ({"THREADLINE_USER_HASH_KEYS": "aGFzaC1rZXk="}, "aGFzaC1rZXk="),
        ({"OTEL_EXPORTER_OTLP_HEADERS": "authorization=Bearer otel-header"}, "otel-header"),
        ({"AWS_SECRET_ACCESS_KEY": "aws/secret+value"}, "aws/secret+value"),
        ({"GITHUB_TOKEN": "a-token-of-mine"}, "a-token-of-mine"),
        ({"TLS_PRIVATE_KEY": "-----BEGIN-----\nthe-middle-of-it\n-----END-----"}, "the-middle-of-it"),
    ],
)
def test_what_counts_as_a_secret_of_the_environment(env: dict[str, str], secret: str) -> None:
    with log_lines(content=True, env=env) as lines:
        theirs.info("it is %s.", secret)
    assert lines.entries[0]["event"] == "it is [secret]."


@pytest.mark.parametrize(
    "text",
    [
        "connect to redis://user:CANARY@host:1/0 failed",
        "Authorization: Bearer CANARY",
        "{'authorization': 'Basic CANARY'}",
        '{"api_key": "CANARY"}',
        "host=a password=CANARY dbname=b",
        "https://x.example/?token=CANARY&a=1",
        "the key sk-CANARYCANARYCANARY",
        "connect to redis://user:pass@CANARY@host:1/0 failed",
        "{'password': 'two CANARY words'}",
        '{"api_key": "two CANARY words"}',
        "https://x.example/file?X-Amz-Signature=CANARY&X-Amz-Expires=60",
        "https://x.example/file?se=1&sig=CANARY",
        "-----BEGIN PRIVATE KEY-----\nMIICANARY\n-----END PRIVATE KEY-----",
        "eyJhbGciOiJI.eyJzdWIiOiIx.CANARY",
    ],
)
def test_what_looks_like_a_secret_goes_though_nobody_knows_it(text: str) -> None:
    with log_lines(content=True) as lines:
        theirs.info(text)
    assert "CANARY" not in lines.text
    assert "[secret]" in lines.text


def test_no_secret_of_the_worker_is_in_what_a_job_s_caller_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """pydantic's errors quote the key that did not fit; what only looks like a secret is the caller's own."""
    monkeypatch.setenv("A_MODEL_API_KEY", "a-key-of-the-operator")
    told = "token: four, input_value='a-key-of-the-operator'"
    assert describe(ValueError(told)) == "ValueError: token: four, input_value='[secret]'"
    assert str(AgentConfigError(told)) == "token: four, input_value='[secret]'"
    assert str(FactoryError(told)) == "token: four, input_value='[secret]'"


def test_fields_named_for_a_secret_go_and_figures_stay() -> None:
    with log_lines(content=True) as lines:
        ours.info(
            "event", password="x1", headers={"a": "x2"}, x={"API-Key": "x3"}, max_tokens=5, passages=3, token=None
        )
    entry = lines.entries[0]
    assert not {"x1", "x2", "x3"} & set(lines.text.replace('"', " ").split())
    assert (entry["max_tokens"], entry["passages"], entry["token"], entry["password"]) == (5, 3, None, "[secret]")


def test_an_environment_that_grows_is_looked_at_again() -> None:
    env: dict[str, str] = {"A_TOKEN": "first-secret"}
    with log_lines(content=True, env=env) as lines:
        theirs.info("first-secret second-secret")
        env["B_TOKEN"] = "second-secret"
        theirs.info("first-secret second-secret")
    assert [entry["event"] for entry in lines.entries] == ["[secret] second-secret", "[secret] [secret]"]


def test_an_environment_in_which_a_value_is_replaced_is_looked_at_again() -> None:
    """A token that an agent renews; the one before may still be on its way."""
    env, now = {"A_TOKEN": "first-secret"}, [0.0]
    secrets = Secrets(env, lambda: now[0])
    assert secrets.look()
    env["A_TOKEN"] = "second-secret"
    now[0] += 1.0
    assert secrets.look()
    assert secrets.without("first-secret second-secret") == "[secret] [secret]"
    assert not secrets.look()
    env["A_TOKEN"] = "third-secret"
    now[0] += 1.0
    assert secrets.look()
    assert secrets.without("first-secret third-secret") == "first-secret [secret]"  # or they would be ever more


def test_words_that_are_a_user_s_name_too_stay() -> None:
    with log_lines(env={"DATABASE_URL": "postgresql://threadline:threadline@host/threadline"}) as lines:
        logging.getLogger("threadline_worker.x").info("threadline")
    assert (lines.entries[0]["event"], lines.entries[0]["logger"]) == ("threadline", "threadline_worker.x")


def says(content: bool) -> LogLines:
    with log_lines("debug", content=content) as lines:
        HOOK[0] = warnings.showwarning
        ours.info("job.finished", message=WORDS, input={"messages": [WORDS]}, result=[WORDS], answer=WORDS, job_id="j1")
        ours.info("event", nested={"content": WORDS, "count": 3}, what=Thing(WORDS), failed=ValueError(WORDS))
        for name in ("langchain_core.callbacks", "openai._base_client", "httpx", "some.client"):
            logging.getLogger(name).setLevel(logging.DEBUG)
            logging.getLogger(name).debug("Request options: %s", {"json": WORDS})
            logging.getLogger(name).debug(f"Request {WORDS}")  # noqa: G004 - as many do
        logging.getLogger("langchain").warning(f"could not parse {WORDS}")  # noqa: G004
        logging.getLogger("asyncio").error(f"Task exception was never retrieved\nfuture: <Task exception={WORDS}>")  # noqa: G004
        with structlog.contextvars.bound_contextvars(job_id="j1"):
            raising(WORDS)
        in_a_thread(WORDS)
        warn(WORDS)
        ours.info("event", rude=Rude())
        theirs.info("%s", Rude())
    return lines


def test_what_users_and_agents_say_is_shown_by_its_size() -> None:
    lines = says(content=False)
    # What an agent's own author logs above debug, or names a thread, is the author's to decide.
    own = [entry for entry in lines.entries if WORDS in json.dumps(entry)]
    assert [entry.get("where", entry["event"]) for entry in own] == [f"it failed: {WORDS}", f"thread thread {WORDS}"]
    finished, event, *rest = lines.entries
    assert (finished["message"], finished["input"], finished["result"]) == ("[21 characters]", "[1 items]", "[1 items]")
    assert event["nested"] == {"content": "[21 characters]", "count": 3}
    assert (event["what"], event["failed"]) == ("[Thing]", "[ValueError]")
    debug = [entry["event"] for entry in rest if entry["level"] == "debug"]
    assert debug == ["Request options: %s", "[29 characters]"] * 4
    assert "Task exception was never retrieved" in [entry["event"] for entry in rest]


def test_an_exception_is_told_by_type_and_way_and_the_line_says_where_its_words_are() -> None:
    failed = next(entry for entry in says(content=False).entries if entry["event"] == "job.failed")
    group, cause = failed["exception"]
    assert (group["type"], cause["type"]) == ("ExceptionGroup", "KeyError")
    assert [member[0]["type"] for member in group["exceptions"]] == ["ValueError", "FileNotFoundError"]
    assert "test_redaction.py" in group["frames"][0]
    assert group["frames"][0].endswith(" in raising")
    assert group["withheld"] == "what it says: threadline status j1"


def test_asked_for_contents_are_shown() -> None:
    lines = says(content=True)
    failed = next(entry for entry in lines.entries if entry["event"] == "job.failed")
    assert failed["exception"][1]["says"] == f"'{WORDS}'\nnote {WORDS}"
    assert lines.entries[0]["message"] == WORDS
    assert lines.entries[0]["input"] == {"messages": [WORDS]}
    assert any(entry["event"] == f"Request {WORDS}" for entry in lines.entries)
    assert "its __str__ raises ValueError" in lines.text


def test_a_line_that_cannot_be_made_says_whose_it_was() -> None:
    with log_lines(content=True) as lines:
        theirs.info("%d", WORDS)
        theirs.info("%s", Rude())
        circle: list[Any] = []
        circle.append(circle)
        ours.info("event", circle=circle, figure=float("nan"), huge=10**400)
    broken, rude, event = lines.entries
    assert (broken["event"], broken["of"], broken["error"]) == ("log.unreadable", "agent", "TypeError")
    assert (rude["event"], rude["error"]) == ("log.unreadable", "ValueError")
    assert (event["figure"], event["huge"]) == ("[float]", "[int]")
    assert WORDS not in lines.text


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.floats()
    | st.integers()
    | st.text()
    | st.binary()
    | st.text(max_size=9).map(lambda text: text * 2000),
    lambda inner: st.lists(inner, max_size=20) | st.dictionaries(st.text(), inner, max_size=20),
    max_leaves=60,
)


@QUICK
@given(st.dictionaries(st.text().filter(lambda name: name not in {"event", "exc_info"}), JSON, max_size=40), st.text())
@example({"a": "\U0001f511" * 9000, "b": {"c": ["\U0001f511" * 9000] * 30}}, "\0" * 9000)
@example({"\U0001f511" * 500 + str(n): "\U0001f511" * 500 for n in range(40)}, "x")
def test_a_line_is_json_and_never_too_long(fields: dict[str, Any], event: str) -> None:
    with log_lines(content=True) as lines:
        ours._proxy_to_logger("info", event, **{f"x{name}": value for name, value in fields.items()})
        (line,) = lines.text.splitlines()
    assert len(line) <= MOST_CHARACTERS
    assert isinstance(json.loads(line, parse_constant=pytest.fail), dict)


def test_hooks_of_the_process_are_in_the_pipe() -> None:
    with log_lines() as lines:
        try:
            raise RuntimeError(WORDS)  # noqa: TRY301
        except RuntimeError as error:
            sys.excepthook(RuntimeError, error, error.__traceback__)

            class Unraisable:
                object, exc_value = in_a_thread, error

            sys.unraisablehook(Unraisable)  # type: ignore[arg-type]  # as much of it as is read
        in_a_thread("x" * 8)
        HOOK[0] = warnings.showwarning
        warn(WORDS)
    assert [(entry["event"], entry.get("where")) for entry in lines.entries] == [
        ("exception.uncaught", "the process, which ends"),
        ("exception.uncaught", "cleaning up in_a_thread"),
        ("exception.uncaught", "thread thread xxxxxxxx"),
        ("python.warning", None),
    ]
    assert WORDS not in lines.text
