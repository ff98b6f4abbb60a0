"""What a worker imports; loaded once, in the process that the workers of tests are forked from."""

import gc

import threadline_worker

# ruff: isort: split
import deepagents  # noqa: F401
import langchain.chat_models  # noqa: F401

import threadline_worker.commands
import threadline_worker.main
import threadline_worker.settings
import threadline_worker.signals
import threadline_worker.telemetry.logs  # noqa: F401

# A collection in a fork would write to every page that it shares with this process.
gc.collect()
gc.freeze()
