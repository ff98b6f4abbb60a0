"""What the offline model says in a graph whose tools it does not know: the sentences nearest to the last message."""

from __future__ import annotations

from threadline_worker.agents.offline.conversation import Conversation, Reply
from threadline_worker.agents.offline.ranking import Passage, best_claims
from threadline_worker.agents.offline.terms import topic_of

MAX_SENTENCES = 3
MAX_CHARS = 600
MAX_READ_CHARS = 20_000


def next_reply(conversation: Conversation) -> Reply:
    """Quote from what tools answered and from the message itself; without a whole sentence there, its beginning."""
    answers = [step.content for turn in conversation.turns for step in turn if not step.failed]
    texts = [text[:MAX_READ_CHARS] for text in (*answers, conversation.question)]
    passages = [Passage(str(place), "", "", text) for place, text in enumerate(texts)]
    terms = topic_of(conversation.question[-MAX_CHARS:]).terms
    claims = best_claims(passages, terms, conversation.question, limit=MAX_SENTENCES)
    said = " ".join(claim.text for claim in claims) or " ".join(conversation.question.split())[:MAX_CHARS]
    return Reply(text=f"(No language model was used.) {said or 'Nothing was asked.'}")
