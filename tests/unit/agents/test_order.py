"""A producer's configurable and a factory's arguments: ours win, whatever is given."""

from __future__ import annotations

from langgraph.store.memory import InMemoryStore

from threadline_worker.agents.order import JobUser, Order, configurable_of


def test_a_producer_cannot_name_another_thread_user_or_checkpoint_nor_langgraphs_own() -> None:
    given = {
        **dict.fromkeys(("thread_id", "thread_ts", "user_id", "job_id", "run_id", "update_id", "step"), "other"),
        **dict.fromkeys(("checkpoint_id", "checkpoint_ns", "checkpoint_map", "checkpoint_anything"), "other"),
        **dict.fromkeys(("__pregel_checkpointer", "__pregel_resuming", "__pregel_runtime"), "other"),
        **dict.fromkeys(("langgraph_auth_user", "langgraph_auth_user_id"), "other"),
        "model": "small",
    }
    made = configurable_of(given, thread_id="t", user_id="u", job_id="j")
    assert made == {"model": "small", "thread_id": "t", "user_id": "u", "job_id": "j"}


def test_the_runtime_of_a_run_and_of_a_look() -> None:
    store = InMemoryStore()
    run = Order("threads.create_run", {"user_id": "u"}, {"x": 1}, lambda: store).runtime(None)
    assert run.execution_runtime is run
    assert (run.context, run.store, run.ensure_user()["identity"]) == ({"x": 1}, store, "u")
    look = Order("threads.read", {"user_id": "u"}).runtime(None)
    assert look.execution_runtime is None
    assert dict(JobUser("u"))["display_name"] == "u"
