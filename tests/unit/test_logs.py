"""Every log event has a registered name, and every registered name is used."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import threadline_worker
from threadline_worker.telemetry.log_events import LOG_EVENTS
from threadline_worker.telemetry.logs import configure_logs

ROOT = Path(threadline_worker.__file__).parent
LEVELS = {"debug", "info", "warning", "error", "exception", "critical"}


def events_in(tree: ast.AST) -> set[str | None]:
    """The first arguments of calls like `log.info(…)`; None for one that is no literal."""
    found: set[str | None] = set()
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr in LEVELS
            and isinstance(node.func.value, ast.Name)
            and node.func.value.id in {"log", "logger", "_log"}
        ):
            name = node.args[0] if node.args else None
            found.add(name.value if isinstance(name, ast.Constant) else None)
    return found


def test_log_events_and_their_table_agree() -> None:
    used: set[str | None] = set()
    for file in ROOT.rglob("*.py"):
        used |= events_in(ast.parse(file.read_text(encoding="utf-8")))
    assert used - set(LOG_EVENTS) == set(), "not in telemetry/log_events.py"
    assert set(LOG_EVENTS) - used == set(), "in telemetry/log_events.py, but nothing logs them"


def test_json_lines_hold_fields_and_exceptions_without_locals(capsys) -> None:
    import logging

    import structlog

    before = logging.getLogger().handlers[:], logging.getLogger().level
    try:
        configure_logs("info", "json")
        secret = "s3cret"  # noqa: F841 - a local that a traceback must not show
        try:
            {}["broken"]
        except KeyError:
            structlog.get_logger("x").error("job.failed", job_id="j", exc_info=True)
        logging.getLogger("arq.worker").info("chatter")
        lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    finally:
        logging.getLogger().handlers[:], level = before
        logging.getLogger().setLevel(level)
        structlog.reset_defaults()
    assert [(line["event"], line["job_id"], line["level"]) for line in lines] == [("job.failed", "j", "error")]
    assert lines[0]["exception"][0]["exc_value"] == "'broken'"
    assert "s3cret" not in json.dumps(lines)


def test_reticent_logs_tell_where_an_error_came_from_and_not_what_it_says(capsys) -> None:
    import logging

    import structlog

    before = logging.getLogger().handlers[:], logging.getLogger().level
    try:
        for form in ("json", "console"):
            configure_logs("info", form, reticent=True)
            for logger in (structlog.get_logger(form), logging.getLogger("another")):
                try:
                    int("what a user said")
                except ValueError:
                    logger.exception("job.failed")
    finally:
        logging.getLogger().handlers[:], level = before
        logging.getLogger().setLevel(level)
        structlog.reset_defaults()
    told = capsys.readouterr().err
    assert "what a user said" not in told
    assert told.count("ValueError") == 4
    assert told.count("in test_reticent_logs") == 4
