"""The leader's part: plan, look into memory, delegate, draft, have it checked, report, remember, answer.

Each turn is one stage and what a stage does follows from the conversation alone, so a step that runs again does the
same, and the run ends after eight stages whatever the tools answer. A stage that a person rejected is done again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from threadline_worker.agents.offline import critic, memories
from threadline_worker.agents.offline.assignment import Assignment
from threadline_worker.agents.offline.conversation import Call, Conversation, Reply, Step
from threadline_worker.agents.offline.findings import read_findings
from threadline_worker.agents.offline.plan import RESEARCH, planned
from threadline_worker.agents.offline.report import Material, draft_of, report_of, without
from threadline_worker.agents.offline.terms import Topic, topic_of

TOOLS = frozenset({"task", "write_todos", "write_file", "read_file", "ls"})
DRAFT, REPORT = "/draft.md", "/report.md"
_TITLE_CHARS = 300

Stage = Callable[[Conversation], tuple[Call, ...]]


def next_reply(conversation: Conversation) -> Reply:
    """Say the next thing: the calls of the stage that the conversation has reached, or the answer."""
    if not _topic(conversation).subject:
        return Reply(text="The question has no words to search for. Please ask it in words.")
    stages = [_plan, _look_back, *([_recall] if memories.related(conversation) else [])]
    stages += [_delegate, _draft, _have_it_checked, _report, _remember]
    done = sum(all(step.decision != "reject" for step in turn) for turn in conversation.turns)
    return Reply(text=_answer(conversation)) if done >= len(stages) else Reply(calls=stages[done](conversation))


def _plan(conversation: Conversation) -> tuple[Call, ...]:
    return (_todos(conversation, done=0),)


def _look_back(_: Conversation) -> tuple[Call, ...]:
    return (Call("ls", {"path": memories.FOLDER}),)


def _recall(conversation: Conversation) -> tuple[Call, ...]:
    return tuple(Call("read_file", {"file_path": path}) for path in memories.related(conversation))


def _delegate(conversation: Conversation) -> tuple[Call, ...]:
    parts = _assignments(conversation)
    job = len(conversation.earlier_questions) + 1
    descriptions = (part.describe(number, len(parts), job) for number, part in enumerate(parts, start=1))
    return tuple(Call("task", {"description": text, "subagent_type": "researcher"}) for text in descriptions)


def _draft(conversation: Conversation) -> tuple[Call, ...]:
    draft = draft_of(_found(conversation))
    write = Call("write_file", {"file_path": DRAFT, "content": f"{draft}\n"})
    return (_todos(conversation, done=len(_assignments(conversation)) + 1), write)


def _have_it_checked(conversation: Conversation) -> tuple[Call, ...]:
    job = len(conversation.earlier_questions) + 1
    description = critic.task_for(DRAFT, _title(conversation), _topic(conversation).terms, job)
    return (Call("task", {"description": description, "subagent_type": "critic"}),)


def _report(conversation: Conversation) -> tuple[Call, ...]:
    wishes = tuple(reason for reason in conversation.rejected("write_file") if reason)
    report = report_of(replace(_checked(conversation), wishes=wishes))
    write = Call("write_file", {"file_path": REPORT, "content": report})
    return (_todos(conversation, done=len(_assignments(conversation)) + 2), write)


def _remember(conversation: Conversation) -> tuple[Call, ...]:
    content = memories.memory_of(_checked(conversation))
    write = Call("write_file", {"file_path": memories.path_for(_title(conversation)), "content": content})
    return (_todos(conversation, done=len(_assignments(conversation)) + 4), write)


def _answer(conversation: Conversation) -> str:
    material = _checked(conversation)
    written = any(not step.failed and step.args.get("file_path") == REPORT for step in conversation.steps("write_file"))
    if not written:
        return report_of(material)
    claims, sources = len(material.claims), len({claim.source for claim in material.claims})
    if not claims:
        return f"The sources have nothing on this question; {REPORT} says so. No language model was used."
    return (
        f"The report is in {REPORT}: {claims} statements quoted from {sources} passages. No language model was used, "
        "so read it as a guided selection from the sources."
    )


def _todos(conversation: Conversation, done: int) -> Call:
    parts = [f"{RESEARCH}{part.heading}" for part in _assignments(conversation)]
    plan = ["Look into what is remembered", *parts, "Write a draft and have it checked", "Write the report"]
    plan.append("Remember what is of use later")
    states = [
        "completed" if place < done else "in_progress" if place == done else "pending" for place in range(len(plan))
    ]
    return Call("write_todos", {"todos": [{"content": c, "status": s} for c, s in zip(plan, states, strict=True)]})


def _found(conversation: Conversation) -> Material:
    steps = [step for step in conversation.steps("task") if step.args.get("subagent_type") == "researcher"]
    sections = tuple(read_findings(_text(step), _heading(step)) for step in steps)
    return Material(_title(conversation), sections, earlier=memories.recalled(conversation))


def _checked(conversation: Conversation) -> Material:
    steps = [step for step in conversation.steps("task") if step.args.get("subagent_type") == "critic"]
    lines = [line for step in steps for line in _text(step).splitlines()]
    removed = {line.split(": ", 1)[1] for line in lines if line.startswith(critic.REMOVE) and ": " in line}
    missing = [line.removeprefix(critic.MISSING) for line in lines if line.startswith(critic.MISSING)]
    return without(_found(conversation), removed, [term for terms in missing for term in terms.split(", ")])


def _text(step: Step) -> str:
    return "" if step.failed else step.content


def _heading(step: Step) -> str:
    return Assignment.read(str(step.args.get("description", ""))).heading


def _assignments(conversation: Conversation) -> Sequence[Assignment]:
    return planned(conversation, _title(conversation), _topic(conversation))


def _topic(conversation: Conversation) -> Topic:
    return topic_of(conversation.question, conversation.earlier_questions)


def _title(conversation: Conversation) -> str:
    title = " ".join(conversation.question.split())
    return title if len(title) <= _TITLE_CHARS else f"{title[:_TITLE_CHARS].rsplit(' ', 1)[0]} …"
