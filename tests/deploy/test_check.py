"""deploy/check.py leaves nothing out silently, and shows what a tool says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from support.estate import DEPLOY


def checked(env: dict[str, str], *names: str) -> subprocess.CompletedProcess[str]:
    command: list[Path | str] = [sys.executable, DEPLOY / "check.py", *names]
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False)


def test_a_missing_tool_is_told_and_the_check_is_incomplete(tmp_path: Path) -> None:
    done = checked({"PATH": str(tmp_path)}, "alerts", "Dockerfile")
    assert done.returncode == 3
    assert "MISSING  alerts: promtool: part of Prometheus" in done.stdout
    assert "incomplete: 2 of" in done.stdout


def test_what_a_tool_says_against_a_file_is_shown(tmp_path: Path) -> None:
    promtool = tmp_path / "promtool"
    promtool.write_text("#!/bin/sh\necho the rules are wrong\nexit 1\n")
    promtool.chmod(0o755)
    done = checked({"PATH": "/usr/bin:/bin", "DEPLOY_TOOLS": str(tmp_path)}, "alerts")
    assert done.returncode == 1
    assert "the rules are wrong" in done.stdout
