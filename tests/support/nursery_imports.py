"""What a worker imports; loaded once, in the process that the workers of tests are forked from."""

import threadline_worker

# ruff: isort: split
import deepagents  # noqa: F401
import langchain.chat_models  # noqa: F401

import threadline_worker.commands
import threadline_worker.main
import threadline_worker.settings
import threadline_worker.signals
import threadline_worker.telemetry.logs  # noqa: F401
