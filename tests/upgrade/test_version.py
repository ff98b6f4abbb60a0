"""The version stands in several places, and is the same in all of them."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import threadline

ROOT = Path(__file__).parents[2]
TAG = re.compile(r"(?:threadline:|newTag: |image\.version=\")(\d+\.\d+\.\d+)")


def test_the_package_and_all_that_deploys_it_name_one_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["version"] == threadline.__version__
    files = [ROOT / "docs" / "deploy.md", *(path for path in (ROOT / "deploy").rglob("*") if path.is_file())]
    tags = {
        (str(path.relative_to(ROOT)), tag)
        for path in files
        for tag in TAG.findall(path.read_text(encoding="utf-8", errors="replace"))
    }
    assert len(tags) >= 5
    assert {tag for _path, tag in tags} == {threadline.__version__}, tags
