"""Runs one SQL file of this folder at DATABASE_URL, where there is no psql; all of it or nothing.

python apply.py FILE. The namespace is THREADLINE_NAMESPACE, the schema of adopted checkpoints
THREADLINE_CHECKPOINT_SCHEMA, as for every other part. Exit code 4 and one line if it cannot be done.
"""

# ruff: noqa: INP001 - a script of its own, in no package

from __future__ import annotations

import os
import sys
from pathlib import Path

import psycopg

_SETTINGS = {
    "threadline.namespace": "THREADLINE_NAMESPACE",
    "threadline.checkpoint_schema": "THREADLINE_CHECKPOINT_SCHEMA",
}


def apply(url: str, file: Path, settings: dict[str, str]) -> None:
    """Run the file in one transaction with these settings. Raises psycopg.Error."""
    with psycopg.connect(url, application_name="threadline-grants") as connection:
        for name, value in settings.items():
            connection.execute("SELECT set_config(%s, %s, true)", (name, value))
        connection.execute(file.read_bytes())


def main() -> int:
    """The exit code."""
    if len(sys.argv) != 2 or not os.environ.get("DATABASE_URL"):  # noqa: PLR2004 - the program and its one argument
        sys.stderr.write("usage: DATABASE_URL=… python apply.py FILE\n")
        return 2
    try:
        settings = {name: os.environ.get(variable, "") for name, variable in _SETTINGS.items()}
        apply(os.environ["DATABASE_URL"], Path(sys.argv[1]), settings)
    except (psycopg.Error, OSError) as error:
        sys.stderr.write(f"{sys.argv[1]} could not be applied: {' '.join(str(error).split())}\n")
        return 4
    return 0


if __name__ == "__main__":
    sys.exit(main())
