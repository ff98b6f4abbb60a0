"""The researcher's part: searches with the terms of its task, reads, picks the best sentences, notes and reports."""

from __future__ import annotations

import hashlib
from typing import Any

from threadline_worker.agents.offline.assignment import Assignment
from threadline_worker.agents.offline.conversation import Call, Conversation, Reply
from threadline_worker.agents.offline.findings import Findings, write_findings
from threadline_worker.agents.offline.ranking import Passage, best_claims, best_example, covered, quotable
from threadline_worker.agents.offline.terms import stems, topic_of

SEARCH_TOOLS = ("search_corpus", "web_search")
RESULTS_PER_QUERY = 12
SOURCES_READ = 6
CLAIMS = 6


def next_reply(conversation: Conversation) -> Reply:
    """Say the next thing: each turn is one stage, so it ends after four at most."""
    task = _task(conversation)
    stages = (_search, _read, _note)
    for stage in stages[len(conversation.turns) :]:
        if calls := stage(conversation, task):
            return Reply(calls=calls)
        break  # nothing to do at this stage: there is nothing to build the later ones on
    return Reply(text=_report(conversation, task))


def _task(conversation: Conversation) -> Assignment:
    task = Assignment.read(conversation.question)
    if task.terms:
        return task
    topic = topic_of(task.question)
    return Assignment(task.heading, task.question, topic.terms)


def _search(conversation: Conversation, task: Assignment) -> tuple[Call, ...]:
    first, *rest = task.terms or ("",)
    queries = dict.fromkeys([" ".join(task.terms), " ".join(rest), *(f"{first} {word}" for word in rest[:2])])
    asked = [query for query in queries if query][:3]
    corpus = [Call("search_corpus", {"query": query, "limit": RESULTS_PER_QUERY}) for query in asked]
    web = [Call("web_search", {"query": " ".join(task.terms)})] if asked else []
    return tuple(call for call in (*corpus, *web) if call.name in conversation.tools)


def _read(conversation: Conversation, task: Assignment) -> tuple[Call, ...]:
    if "read_source" not in conversation.tools:
        return _note(conversation, task)
    found = [hit for hit in _hits(conversation) if str(hit["source_id"]).startswith("S")]
    allowed = [hit for hit in found if not _left_out(_passage(hit, ""), task)]
    promising = sorted(allowed, key=lambda hit: _doubts(hit, task))
    calls = (Call("read_source", {"source_id": hit["source_id"]}) for hit in promising[:SOURCES_READ])
    return tuple(calls) or _note(conversation, task)


def _note(conversation: Conversation, task: Assignment) -> tuple[Call, ...]:
    if "write_file" not in conversation.tools or conversation.steps("write_file"):
        return ()
    name = hashlib.sha256(f"{task.question}\0{task.heading}".encode()).hexdigest()[:8]
    report = _report(conversation, task)
    return (Call("write_file", {"file_path": f"/notes/{name}.md", "content": f"# {task.heading}\n\n{report}\n"}),)


def _report(conversation: Conversation, task: Assignment) -> str:
    passages = _passages(conversation, task)
    least = -(-len(task.terms) // 2) if task.leave_out else 1  # away from the subject, one word in common is chance
    claims = best_claims(passages, task.terms, task.question, limit=CLAIMS, least=least)
    order = {passage.id: place for place, passage in enumerate(passages)}
    names = [f"{passage.title} {passage.location}" for passage in passages if passage.id in {c.source for c in claims}]
    said = covered(task.terms, claims, names)
    findings = Findings(
        heading=task.heading,
        best=claims[0] if claims else None,
        claims=tuple(sorted(claims, key=lambda claim: order[claim.source])),
        titles={passage.id: passage.title for passage in passages},
        missing=tuple(term for term in task.terms if term not in said),
        example=None if task.leave_out else best_example(passages, claims, task.question),
    )
    return write_findings(findings, {passage.id: passage.location for passage in passages})


def _hits(conversation: Conversation) -> list[dict[str, Any]]:
    """Join the results of all searches: what stands high in several comes first (reciprocal rank fusion)."""
    scores: dict[str, float] = {}
    hits: dict[str, dict[str, Any]] = {}
    for step in (step for name in SEARCH_TOOLS for step in conversation.steps(name)):
        results = [hit for hit in step.json.get("results", []) if isinstance(hit, dict) and hit.get("source_id")]
        for rank, hit in enumerate(results):
            hits.setdefault(hit["source_id"], hit)
            scores[hit["source_id"]] = scores.get(hit["source_id"], 0.0) + 1.0 / (10 + rank)
    return [hits[source_id] for source_id in sorted(scores, key=lambda source_id: (-scores[source_id], source_id))]


def _passages(conversation: Conversation, task: Assignment) -> list[Passage]:
    """Take what was read in full; where reading failed, what the searches quoted."""
    read = [_passage(step.json, "text") for step in conversation.steps("read_source") if step.json.get("text")]
    known = {passage.id for passage in read}
    quoted = [_passage(hit, "snippet") for hit in _hits(conversation) if hit["source_id"] not in known]
    passages = [*read, *(passage for passage in quoted if not read or passage.id.startswith("W"))]
    return [passage for passage in passages if _fits(passage, task)] or ([] if task.leave_out else passages)


def _passage(answer: dict[str, Any], key: str) -> Passage:
    text = str(answer.get(key) or answer.get("snippet") or "")
    source_id, title, location = (str(answer.get(name, "")) for name in ("source_id", "title", "location"))
    return Passage(source_id, " ".join(title.split()) or location, location, text)


def _doubts(hit: dict[str, Any], task: Assignment) -> int:
    """Count what speaks against reading a passage, by its snippet: no sentence in it, or not the word to insist on."""
    nothing_to_quote = not quotable(str(hit.get("snippet", "")), task.question)
    return 2 * nothing_to_quote + (not _fits(_passage(hit, ""), task))


def _fits(passage: Passage, task: Assignment) -> bool:
    words = passage.name_stems | set(stems(passage.text))
    return not _left_out(passage, task) and words.issuperset(stems(task.must_mention))


def _left_out(passage: Passage, task: Assignment) -> bool:
    return bool(task.leave_out) and passage.name_stems.issuperset(stems(task.leave_out))
