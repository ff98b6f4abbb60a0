"""THREADLINE_AGENTS: a langgraph.json as it is, or names one by one; what cannot be read says where."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from threadline.errors import ConfigurationError
from threadline_worker.agents.project import read_project


def langgraph_json(folder: Path, **told: object) -> str:
    (folder / "langgraph.json").write_text(json.dumps(told))
    return "langgraph.json"


def test_names_one_by_one(tmp_path: Path) -> None:
    assert read_project("a=m:x, b=m.n:y.z", tmp_path).sources == {"a": "m:x", "b": "m.n:y.z"}
    assert read_project("a=./a.py:x", tmp_path).sources == {"a": f"{tmp_path}/a.py:x"}
    assert read_project("a=m:x", tmp_path).paths == (tmp_path,)
    assert read_project("  ", tmp_path).sources == {}


def test_a_langgraph_json_is_taken_as_it_is(tmp_path: Path) -> None:
    for folder in ("flat", "lib/src", "bare"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "flat" / "__init__.py").touch()
    (tmp_path / "lib" / "pyproject.toml").touch()
    project = read_project(
        langgraph_json(
            tmp_path,
            graphs={"a": "./a.py:g", "b": {"path": "mod.b:g", "description": "B"}},
            dependencies=["langchain>=1", "./flat", "./lib", "./bare"],
            env=".env",
            store={"index": {"embed": "x"}},
            http={"app": "./web.py:app"},
            dockerfile_lines=["RUN true"],
        ),
        tmp_path,
    )
    assert project.sources == {"a": f"{tmp_path}/a.py:g", "b": "mod.b:g"}
    assert project.paths == (tmp_path, tmp_path / "lib/src", tmp_path / "lib", tmp_path / "bare")
    assert project.packages == ("langchain>=1",)
    assert project.env_file == tmp_path / ".env"


def test_variables_may_stand_in_the_file_and_are_not_shown(tmp_path: Path) -> None:
    project = read_project(langgraph_json(tmp_path, graphs={}, env={"KEY": "hunter2", "N": 3}), tmp_path)
    assert project.variables == {"KEY": "hunter2", "N": "3"}
    assert "hunter2" not in repr(project)
    with pytest.raises(ConfigurationError, match="`env`") as caught:
        read_project(langgraph_json(tmp_path, graphs={}, env={"KEY": ["hunter2"]}), tmp_path)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("text", ["a", "a=m", "=m:x", "missing.json", "a b=m:x"])
def test_a_value_that_cannot_be_read_names_the_variable(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigurationError, match="THREADLINE_AGENTS"):
        read_project(text, tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"graphs": {"a": 7}}',
        '{"graphs": []}',
        '{"other": 1}',
        '{"graphs": {}, "dependencies": "."}',
        '{"graphs": {}, "dependencies": ["./gone"]}',
    ],
)
def test_a_broken_langgraph_json_names_the_file(tmp_path: Path, text: str) -> None:
    (tmp_path / "langgraph.json").write_text(text)
    with pytest.raises(ConfigurationError, match=r"langgraph\.json"):
        read_project("langgraph.json", tmp_path)
