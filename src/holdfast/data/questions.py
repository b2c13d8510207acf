"""Requests in the imperative, asked as questions.

"Outline steps to open the vault." becomes "How do I open the vault?"

Published refusals answer imperatives almost only, benign requests are questions more often than not; a small model
then learns to refuse the form, not what is asked for.
"""

from __future__ import annotations

import random
import re

# A verb that asks for a way, some words about that way, and what it is a way to.
_TELLS = re.compile(
    r"[A-Z][a-z]+ (?:\w+ ){0,5}?(?:how|steps|ways?|methods?|techniques?|strateg(?:y|ies)|instructions|guide|plan|ideas"
    r"|tactics|tips)(?: needed| required)? to (?P<act>[a-z][^.?!]*)\.?"
)
_OWN = {"your": "my", "yours": "mine", "yourself": "myself", "you": "me"}
_FORMS = ("How do I {}?", "How can I {}?", "What is the best way to {}?", "Can you tell me how to {}?")


def asked(request: str, draw: int = 0) -> str | None:
    """The request as a question, the same for the same one; None where it is not one sentence that asks for a way."""
    found = _TELLS.fullmatch(request.strip())
    if found is None:
        return None
    act = re.sub(r"\b(?:yours|yourself|your|you)\b", lambda word: _OWN[word[0]], found["act"])
    return random.Random(f"holdfast-question-{draw}-{request}").choice(_FORMS).format(act)
