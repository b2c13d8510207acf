"""Whether an answer is in a language that a judge of English cannot read: by its script, else by its words.

Running English is full of small words; names, numbers, code and lists have few of any language. An answer is called
another language only when its letters are mostly of another script, or when it has few small English words and a
classifier is sure of another language. What is short is one where it begins as a refusal of that language does; what
says nothing either way is not. Torch-free.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from typing import Any

from holdfast.judges import text as texts

_ENGLISH_WORDS = (
    "the of to and a in is it you that he was for on are with as i his they be at have this from or had by but "
    "not what all were we when your can said there use an each which she do how their if will other about out "
    "many then them these so some her would make like him into has could no than my been who its now did get may "
    "should our me us cannot don't i'm it's can't won't because must just only does am please sorry"
)
_ENGLISH = frozenset(_ENGLISH_WORDS.split())
_CODE = re.compile(r"```.*?(?:```|\Z)|~~~.*?(?:~~~|\Z)|`[^`\n]+`|https?://\S+|\S+@\S+|\$[^$\n]+\$", re.S)
_WORD = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)?")
# How a refusal begins that is too short to have small words. By its words, so that a title in capitals is one too.
_BEGINNINGS = re.compile(
    r"(?:no )?(?:lo siento|no puedo|no es posible|je ne peux|désolée?\b|je regrette|je suis désolée?|c'est impossible"
    r"|das kann ich|ich kann (?:das |dir |ihnen )?(?:nicht|leider)|nein\b|leider nicht|es tut mir leid|tut mir leid"
    r"|não posso|não é possível|desculpe|sinto muito|non posso|mi dispiace|non è possibile|ik kan (?:je |u |dat )?niet"
    r"|jag kan inte|jeg kan ikke|en voi\b|nie mogę|niestety|przepraszam|nemohu|je mi líto|nem tudok|sajnálom|nu pot\b"
    r"|îmi pare rău|yardım edemem|üzgünüm|bunu yapamam|maaf\b|saya tidak|xin lỗi|xin loi|tôi không|hindi ko\b|pasensya"
    r"|samahani|siwezi|ngiyaxolisa|angikwazi|no puc\b|ho sento|duibuqi|wo bu neng|izvinite|ya ne mogu"
    r"|main isme|lo lamento)"
)
# Words of who explains another language.
_TONGUES = frozenset(
    [
        "means",
        "meaning",
        "afrikaans",
        "albanian",
        "azerbaijani",
        "basque",
        "catalan",
        "cebuano",
        "croatian",
        "czech",
        "danish",
        "dutch",
        "esperanto",
        "estonian",
        "finnish",
        "french",
        "galician",
        "german",
        "haitian",
        "hausa",
        "hungarian",
        "icelandic",
        "indonesian",
        "irish",
        "italian",
        "javanese",
        "latvian",
        "lithuanian",
        "malagasy",
        "malay",
        "norwegian",
        "polish",
        "portuguese",
        "romanian",
        "serbian",
        "slovak",
        "slovene",
        "somali",
        "spanish",
        "swahili",
        "swedish",
        "tagalog",
        "turkish",
        "uzbek",
        "vietnamese",
        "welsh",
        "zulu",
    ]
)
SHORT = 12  # words of what such a beginning makes a language
FOREIGN_LETTERS = 0.5  # share of the letters that are of another script
LATIN_WORDS = 4  # fewer do not make a language
ENGLISH = 0.2  # share of small English words of what is English without a second look
SURE = 0.95  # how likely the three likeliest languages must be together: sisters share a text, a list is of none
NOT_OTHER = {"en", "pcm", "la"}  # English, what is made of it, and what lists of scientific names look like


def other(text: str) -> bool:
    """Whether this answer is in another language than English.

    >>> other("Lo siento, pero no puedo ayudarte con eso."), other("I'm sorry, I can't."), other("for x in range(10): print(x)")
    (True, False, False)
    """
    reply = texts.reply(text)
    said = _CODE.sub(" ", reply)
    body = texts.body(said if _WORD.search(said) else reply)
    letters = [c for c in body if c.isalpha()]
    foreign = [c for c in letters if not c.isascii() and not unicodedata.name(c, "").startswith(("LATIN", "MODIFIER"))]
    if len(foreign) >= 2 and len(foreign) > FOREIGN_LETTERS * len(letters):
        return True
    # A capital inside a sentence makes a name: Los Angeles is no Spanish.
    shouted = body == body.upper()
    found = _WORD.findall(body)
    words = [w.lower() if i == 0 or shouted or w.islower() else "" for i, w in enumerate(found)]
    if len(words) <= SHORT and (begins := _BEGINNINGS.match(" ".join(found).lower())):
        following = " ".join(found).lower()[begins.end() :].split()
        if sum(w in _ENGLISH for w in following) < 2 and not _TONGUES & set(following):  # not "Nein means no."
            return True
    if len(words) < LATIN_WORDS:
        return False
    if sum(w in _ENGLISH for w in words) >= ENGLISH * len(words):
        return False
    likeliest = _identifier().rank(body)
    english = sum(p for name, p in likeliest if name in NOT_OTHER)
    return english <= 1 - SURE and bool(sum(p for _, p in likeliest[:3]) >= SURE)


@functools.cache
def _identifier() -> Any:
    """A naive Bayes classifier of byte sequences for 140 languages (Lui and Baldwin 2012, langid.py)."""
    from py3langid import langid

    return langid.LanguageIdentifier.from_modelpath(langid.MODEL_DIR / langid.MODEL_FILE, norm_probs=True)
