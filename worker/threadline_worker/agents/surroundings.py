"""What a project's code finds around it: its folders on Python's path, and its variables where none are set."""

from __future__ import annotations

import os
from collections.abc import Mapping, MutableMapping

import structlog

from threadline_worker.agents.env_file import parse_env
from threadline_worker.agents.errors import AgentConfigError
from threadline_worker.agents.modules import missing_packages
from threadline_worker.agents.project import Project

__all__ = ["Surroundings"]

log = structlog.get_logger(__name__)


class Surroundings:
    """One project's. Values of variables are never logged."""

    def __init__(self, project: Project, environ: MutableMapping[str, str] = os.environ) -> None:
        self._project = project
        self._environ = environ
        self._ours: dict[str, str] = {}
        self._warned = False

    def prepare(self) -> Mapping[str, str]:
        """Set the project's variables that are not set; those that are set by it now. Safe to repeat.

        Repeated, it also takes over what was changed in the file. Raises AgentConfigError for a file that is no text.
        """
        found = self._variables()
        for name, value in found.items():
            if name not in self._environ or self._environ[name] == self._ours.get(name):
                self._environ[name] = self._ours[name] = value
        self._warn_once()
        return dict(self._ours)

    def missing(self) -> list[str]:
        """Packages that the project asks for and nobody has installed."""
        return missing_packages(self._project.packages)

    def hint(self, error: BaseException) -> str:
        """What helps against an import that failed, to be put behind the message; empty for any other error."""
        if not isinstance(error, ModuleNotFoundError):
            return ""
        missing = self.missing()
        told = f" (langgraph.json asks for {', '.join(missing)}, which is not installed)" if missing else ""
        return f"; install it where this worker runs{told}: Threadline installs nothing itself"

    def _variables(self) -> dict[str, str]:
        path = self._project.env_file
        if path is None:
            return dict(self._project.variables)
        try:
            # What we set ourselves is the file's, not the environment's.
            known = {name: value for name, value in self._environ.items() if name not in self._ours}
            found = parse_env(path.read_text(encoding="utf-8"), known)
        except FileNotFoundError:
            self._say(f"langgraph.json names {path}, which is not there: no variable is read from it")
            return {}
        except (OSError, UnicodeDecodeError) as error:
            raise AgentConfigError(f"the env file {path} cannot be read: {type(error).__name__}") from error
        if found.unreadable:
            self._say(f"{path}: line {', '.join(map(str, found.unreadable))} is not NAME=value and is left out")
        return found.variables

    def _warn_once(self) -> None:
        if not self._warned and (missing := self.missing()):
            self._say(f"langgraph.json asks for {', '.join(missing)}, which is not installed here")
        self._warned = True

    def _say(self, problem: str) -> None:
        if not self._warned:
            log.warning("agent.surroundings", problem=problem)
