"""A project's variables fill in what is not set, and its secrets are shown nowhere."""

from __future__ import annotations

from pathlib import Path

import structlog

from threadline_worker.agents.env_file import parse_env
from threadline_worker.agents.project import Project
from threadline_worker.agents.surroundings import Surroundings

DOTENV = r"""
# a comment
A=1
export B = two words   # why
C='raw ${A} # \' x'   # why
D="two
lines\t\"q\" ${A}${X:-def}"
EMPTY=
NAME_ALONE
URL=https://u:p@h/x?y=1#frag
H=${HOME}/x
!!! s3cret
LAST=ok"""


def test_a_dotenv_file_is_read_as_dotenv_does() -> None:
    found = parse_env(DOTENV, {"HOME": "/h"})
    assert found.variables == {
        "A": "1",
        "B": "two words",
        "C": "raw ${A} # ' x",
        "D": 'two\nlines\t"q" 1def',
        "EMPTY": "",
        "URL": "https://u:p@h/x?y=1#frag",
        "H": "/h/x",
        "LAST": "ok",
    }
    assert found.unreadable == [12]


def test_what_is_set_stays_and_what_is_changed_in_the_file_is_taken_over(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text("SET=file\nNEW=one\nREF=${NEW}")
    environ = {"SET": "shell", "EMPTY": ""}
    surroundings = Surroundings(Project(env_file=file), environ)
    assert surroundings.prepare() == {"NEW": "one", "REF": "one"}
    assert environ == {"SET": "shell", "EMPTY": "", "NEW": "one", "REF": "one"}
    file.write_text("SET=file\nNEW=two\nEMPTY=x")
    surroundings.prepare()
    assert (environ["SET"], environ["NEW"], environ["EMPTY"]) == ("shell", "two", "")


def test_what_is_not_there_is_said_once_and_without_values(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    surroundings = Surroundings(Project(env_file=file, packages=("surely-not-there>=1", "langgraph>=1")), {})
    with structlog.testing.capture_logs() as logs:
        surroundings.prepare()
        surroundings.prepare()
    assert [entry["event"] for entry in logs] == ["agent.surroundings"] * 2
    assert "surely-not-there>=1, which is not installed" in logs[1]["problem"]
    file.write_text(DOTENV)
    with structlog.testing.capture_logs() as logs:
        Surroundings(Project(env_file=file), {}).prepare()
    assert "line 12" in logs[0]["problem"]
    assert "s3cret" not in str(logs)


def test_a_missing_module_says_who_installs_it() -> None:
    surroundings = Surroundings(Project(packages=("surely-not-there",)), {})
    hint = surroundings.hint(ModuleNotFoundError("No module named 'x'"))
    assert "Threadline installs nothing" in hint
    assert "surely-not-there" in hint
    assert surroundings.hint(ValueError()) == ""
