"""What a judge reads of an answer: the reply without its think blocks, as plain text.

`reply` only cuts what a model thinks before it answers. `normalise` also takes away what carries no meaning: Unicode
variants of letters, blanks, quotes and dashes, invisible characters, Markdown, HTML and the tokens of chat templates.
`body` is the normalised text without its frame: role headers, greetings, thanks, closing offers and signatures. All
three are idempotent and take any text. Torch-free.
"""

from __future__ import annotations

import functools
import html
import json
import re
import unicodedata

# ---- think blocks --------------------------------------------------------------------------------------

_THINKS = (
    "think|thinking|thought|thoughts|reasoning|reflection|scratchpad|analysis|seed:think|ant:?thinking"
    "|inner[_ ](?:monologue|thoughts)|(?:thinking|thought|reasoning)[_ ](?:process|content|block)"
    "|chain[_ ]of[_ ]thought|cot|rationale|internal"
)
# Opening and closing tag of each notation; no tag that is shown as code (after a backtick) is one.
_NOTATIONS = (
    (rf"<\s*(?:{_THINKS})(?:\s[^<>]{{0,80}})?>", rf"<\s*/\s*(?:{_THINKS})\s*>"),
    (r"\[THINK(?:ING)?\]", r"\[/THINK(?:ING)?\]"),
    (
        r"<\|(?:think|thinking|reasoning_start)\|>",
        r"<\|(?:/(?:think|thinking)|end_(?:think|thinking)|reasoning_end)\|>",
    ),
    (r"<\|begin_of_thought\|>", r"<\|end_of_thought\|>"),
    (r"<\|START_THINKING\|>", r"<\|END_THINKING\|>"),
    (r"◁think▷", r"◁/think▷"),
    (r"<\|inner_prefix\|>", r"<\|inner_suffix\|>"),
    (r"<\|channel>thought", r"<channel\|>"),
    (r"<unused94>", r"<unused95>"),
    (r"<\|channel\|>\s*analysis", r"<\|channel\|>\s*final\s*<\|message\|>"),
)
# Words instead of tags, and pages that fold thoughts away: a block only from the first letter on, with both its ends.
_SPOKEN = re.compile(
    r"\A\s*(?:thinking\.\.\.\s*\n.*?\.\.\.done thinking\.|here is my thought process:.*?here is my response:"
    r"|\**(?:thinking|reasoning|thoughts?|thought process):\**\s.*?(?:\n\s*|(?<=[.!?])\s+)"
    r"\**(?:final answer|final|answer|response):\**"
    r"|\#+ *(?:thinking|reasoning|thought process)\s*\n.*?\n\#+ *(?:final answer|answer|response)\s*\n"
    r"|```(?:thinking|think|thought|reasoning)\s*\n.*?\n```"
    r"|<details[^<>]{0,80}>\s*<summary>\s*(?:thought|thinking|reasoning)[^<]*</summary>.*?</details>"
    r"|(?-i:analysis(?=[A-Z]).*?assistantfinal))\s*",
    re.S | re.I,
)
_OPENING = "|".join(opening for opening, _ in _NOTATIONS)
_CLOSING = "|".join(closing for _, closing in _NOTATIONS)
_BLOCK = re.compile(
    "|".join(rf"(?<!`){opening}(?:(?!{opening}).)*?{closing}\s*" for opening, closing in _NOTATIONS), re.S | re.I
)
_TAG = re.compile(f"{_OPENING}|{_CLOSING}", re.I)
_CLOSED = re.compile(rf"(?<!`)(?:{_CLOSING})(?!`)\s*", re.I)
_WITHOUT_END = re.compile(rf"\s*(?:{_OPENING}).*", re.S | re.I)


def reply(text: str) -> str:
    """The text without what was thought before it; all else stays as it is, to the letter.

    A block without its end is thought to the last word, so that nothing is left; one without its beginning, which
    some chat templates write into the prompt, ends at its closing tag. The word "Reasoning:" opens no block.

    >>> reply("<think>Shall I? I cannot.</think>\\n\\nSure."), reply("They want to"), reply("<think>They want to")
    ('Sure.', 'They want to', '')
    """
    while True:
        cut = _BLOCK.sub("", _SPOKEN.sub("", text))
        for closing in _CLOSED.finditer(cut):
            cut = closing.string[closing.end() :]
        cut = "" if _WITHOUT_END.match(cut) else cut
        if cut == text:
            return text
        text = cut


# ---- plain text ----------------------------------------------------------------------------------------

_LETTERS = re.compile(r"[^\W\d_]{2}")
_ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,30});")
_VARIANTS = str.maketrans(
    dict.fromkeys("\u2018\u2019\u201a\u201b\u02bc\u02bb\u02b9\u2032\u00b4\uff07\u275b\u275c", "'")
    | dict.fromkeys("\u201c\u201d\u201e\u201f\u00ab\u00bb\u2033\uff02\u275d\u275e", '"')
    | dict.fromkeys("\u2010\u2011\u2012\u2212", "-")
    | dict.fromkeys("\u2013\u2014\u2015", " - ")
    | dict.fromkeys("\v\f\x1c\x1d\x1e\x85\u2028\u2029", "\n")
)
# What a model writes after the token that ends its answer, or as the user's next turn, is no part of the answer.
_ENDED = re.compile(
    r"(?:<\|(?:im_end|eot_id|end_of_text|endoftext|end|eom_id)\|>|<end_of_turn>|</s>"
    r"|(?:\n|(?<=[.!?])[ ])[ ]*(?:\#+[ ]*)?(?:user|human)[ ]*:[ ]).*",
    re.S | re.I,
)
_TOKEN = re.compile(
    r"<\|[^|<>\n]{1,40}\|>|</?s>|\[/?INST\]|<(?:start|end)_of_turn>(?:model\b|user\b)?"
    r"|</?(?:answer|response|output|final|solution|assistant|reply|message)>",
    re.I,
)
_COMMENT = re.compile(r"<!--.*?-->", re.S)
_BREAKS = re.compile(
    r"<(?:br|hr)\s*/?>|</?(?:p|div|h[1-6]|ul|ol|blockquote|pre|html|body|section|center)(?: [^<>]*)?>", re.I
)
_ITEM = re.compile(r"<li(?: [^<>]*)?>", re.I)
_INLINE = re.compile(r"</?(?:li|b|i|u|s|em|strong|span|code|a|sub|sup|mark|small|big|font|del|ins)(?: [^<>]*)?>", re.I)
_FENCE = re.compile(r"(?m)^[ ]*(?:`{3,}|~{3,})[\w+-]*[ ]*$")
_RULE = re.compile(r"(?m)^[ ]*(?:([-*_=])[ ]*(?:\1[ ]*){2,}|\|?(?:[ ]*:?-{2,}:?[ ]*\|)+[ :|-]*)$")
_HEADING = re.compile(r"(?m)^[ ]*#{1,6}[ ]+(.*?)[ #]*$")
_CITED = re.compile(r"(?m)^[ ]*(?:>[ ]?)+")
_LINK = re.compile(r"!?\[([^\[\]\n]*)\]\([^()\s]*\)")
_EMPHASIS = re.compile(
    r"(?<=[^\s*])\*+|\*+(?=[^\s*])|^\*{2,3}(?=\s)|(?<=\s)\*{2,3}$|(?<!\w)_+(?=[^\s_])|(?<=[^\s_])_+(?!\w)|~~", re.M
)
_TICK_IN_WORD = re.compile(r"(?<=[A-Za-z])`(?=(?:t|s|m|d|re|ve|ll)\b)")
_ESCAPED = re.compile(r"\\([!\"#$%&'()*+,./:;<=>?@\[\]^_`{|}~-])")
_BLANKS = re.compile(r"[^\S\n]+")
_MARK = r"(?:[-*+\u2022\u2023\u25cf\u25aa\u25e6\u00b7]|\d{1,3}[.)]|\(\d{1,3}\))[ ]"
_LISTED = re.compile(_MARK)
_WRAPPED = 40  # characters: a shorter line was ended, not wrapped


# Letters of other alphabets that look like Latin ones, in words that are written in Latin letters otherwise.
_ALIKE = str.maketrans(
    "\u0430\u0435\u043e\u0440\u0441\u0445\u0443\u0456\u0455\u0458\u0410\u0415\u041e\u0420\u0421\u0425\u0406\u0405\u0422\u041a"
    "\u041c\u041d\u0412\u03bf\u0391\u0392\u0395\u0399\u039f",
    "aeopcxyisjAEOPCXISTKMHBoABEIO",
)
_MIXED = re.compile(r"\w*[A-Za-z]\w*")
_APART = re.compile(r"(?<=[A-Za-z]) ' ?(?=(?:t|s|m|d|re|ve|ll)\b)")


def _latin(text: str) -> str:
    """Words of Latin letters without the letters that only look like them."""
    return text if text.isascii() else _MIXED.sub(lambda m: m.group().translate(_ALIKE), text)


def _said(text: str) -> str:
    """The text up to where it ended, where anything stands before."""
    if (end := _ENDED.search(text)) and _LETTERS.search(text[: end.start()]):
        return text[: end.start()]
    return text


def _visible(text: str) -> str:
    """Without format characters and variation selectors; control characters are blanks."""
    if text.isascii() and text.isprintable():
        return text
    kept = []
    for character in text:
        kind = unicodedata.category(character)
        if character == "\n" or kind not in ("Cf", "Cc", "Cs", "Zs"):
            if not "\ufe00" <= character <= "\ufe0f":
                kept.append(character)
        elif kind in ("Cc", "Zs"):
            kept.append(" ")
    return "".join(kept)


def _paragraphs(text: str) -> str:
    """Paragraphs and list items, an empty line between them; lines that were wrapped are one."""
    out: list[str] = []
    ended = True
    for line in (x.strip() for x in text.split("\n")):
        if not line:
            ended = True
            continue
        wrapped = out and not ended and len(out[-1]) >= _WRAPPED and out[-1][-1] not in ".!?:;\"'"
        if wrapped and not _LISTED.match(line):
            out[-1] += f" {line}"
        else:
            out.append(line)
        ended = False
    return "\n\n".join(out)


def _once(text: str) -> str:
    text = _ENTITY.sub(lambda m: html.unescape(m.group()), text)
    text = text.replace("\r\n", "\n").replace("\r", "\n").translate(_VARIANTS)
    text = _APART.sub("'", _latin(_visible(unicodedata.normalize("NFKC", text))))
    text = _TAG.sub(lambda m: re.sub(r"\W+", " ", m.group()), reply(text))  # what is left of them is spoken of
    text = _TOKEN.sub(" ", _COMMENT.sub(" ", _said(text)))
    text = _INLINE.sub("", _ITEM.sub("\n- ", _BREAKS.sub("\n\n", text)))
    text = _RULE.sub("", _FENCE.sub("", text))
    text = _CITED.sub("", _HEADING.sub(r"\n\1\n", text))
    text = _EMPHASIS.sub("", _LINK.sub(r"\1", text))
    text = _TICK_IN_WORD.sub("'", text).replace("`", "")
    return _paragraphs(_BLANKS.sub(" ", _ESCAPED.sub(r"\1", text)))


@functools.lru_cache(maxsize=256)  # an answer is read for its acts, its language and its repetitions
def normalise(text: str) -> str:
    """The reply as plain text: paragraphs and list items with an empty line between, letters in the case they had.

    >>> normalise("<think>No?</think> **I\\u00a0can\\u2019t**&nbsp;help  with\\t_that_.\\r\\n")
    "I can't help with that."
    """
    text = _out_of_json(text)
    while (plain := _once(text)) != text:
        text = plain
    return text


_FENCED = re.compile(r"\A```(?:json)?\s*\n(.*)\n```\Z", re.S | re.I)
_WORDED = ("answer", "response", "reply", "output", "content", "text", "message", "refusal", "error")


def _out_of_json(text: str) -> str:
    """The words of an answer that was written as an object or a list: the only text there is, or the one whose key says
    that it is the answer."""
    stripped = text.strip()
    stripped = fenced[1].strip() if (fenced := _FENCED.match(stripped)) else stripped
    if stripped[:1] + stripped[-1:] not in ("{}", "[]"):
        return text
    try:
        found = json.loads(stripped, strict=False)
    except (ValueError, RecursionError):
        return text
    pairs = list(found.items()) if isinstance(found, dict) else [("", v) for v in found]
    words = [v for _, v in pairs if isinstance(v, str)]
    named = [v for key in _WORDED for k, v in pairs if k.lower() == key and isinstance(v, str)]
    if named or len(words) == 1:
        return _out_of_json(named[0] if named else words[0])
    return text


# ---- without its frame ---------------------------------------------------------------------------------

_ROLE = (
    r"(?:the )?(?:(?:ai )?assistant|ai|bot|chatbot|model|(?:final |my )?(?:answer|response|reply)|output"
    r"|chatgpt|gpt|claude|gemma|gemini|qwen|llama|mistral|deepseek|smollm|grok)(?: \d{1,2})?"
)
_FRAME_BEFORE = re.compile(
    rf"(?:tl;?dr:\s+|note:\s+|\[{_ROLE}\]:?\s+|\*(?:sighs?|laughs?|smiles?|shakes? head)\*\s+"
    rf"|(?:\[[\d :.,-]{{4,20}}\]\s+)?{_ROLE}(?:'s)?(?: (?:answer|response|reply))?(?::\s+|[ ]*\n+)|a:\s+"
    r"|(?:hello|hi|hey|greetings|welcome|good (?:morning|afternoon|evening|day)|dear (?:user|friend|customer))"
    r"(?: (?:there|again|everyone|all|friend|user|dear|you two))?\b"
    r"(?:,? (?:and )?(?:thank you|thanks)(?: \w+){1,4})?(?:[!.,:]+\s+|\s*\n+)"
    r"|(?:thank you|thanks)(?: (?:so|very) much| a lot)?(?: for (?:\w+ ){0,2}"
    r"(?:question|asking|message|reaching out|request|inquiry|query|patience|contacting (?:me|us)))?(?:[!.]\s+|\s*\n+)"
    r"|(?:it is |it's )?(?:nice|great|good|lovely) to (?:hear|meet|see|talk)[^.!?\n]{0,30}[.!]\s+"
    r"|(?:that is |that's |this is |what )?(?:an? )?(?:(?:very|really|quite|such an?) )?"
    r"(?:great|good|interesting|excellent|important|fascinating|thoughtful|fair|tricky|difficult|tough|sensitive)"
    r" question[.!]+\s+"
    r"|i (?:really )?appreciate (?:you|your) (?:\w+ ){0,2}(?:question|curiosity|asking|request|message)[.!]\s+"
    r"|(?:hmm+|um+)[,.!]*\.{0,3}\s+|(?:okay|ok|well|alright|all right)\b(?:, so)?[,.!]+\.{0,3}\s+"
    r"|(?:i'm|i am) (?:claude|gemma|gemini|qwen|chatgpt|llama|mistral|deepseek|smollm|grok)(?:, [^.!?\n]{1,60})?[.!]\s+"
    r"|here(?: is|'s) (?:my|the) (?:response|answer|reply)[:.]\s+"
    r"|how are you(?: doing)?(?: today)?\?\s+|i hope (?:you are|you're|this message finds you) [\w ]{2,30}[.!]\s+)",
    re.I,
)
_END = (
    r"(?:(?:please )?(?:do not hesitate|don't hesitate|feel free) to (?:ask|reach out|contact me|let me know)"
    r"|(?:please )?let me know (?:if|whether|how|what) [^.!?\n]*|i(?:'m| am) (?:always )?here to help"
    r"|i hope (?:this|that|it) (?:helps?|is helpful|was helpful)|hope (?:this|that) helps"
    r"|is there anything else[^.!?\n]*|have a (?:great|nice|good|wonderful|lovely) (?:day|one|time|evening)"
    r"|good luck|stay safe|take care|thank you(?: for (?:understanding|your understanding))?|thanks"
    r"|if you have any (?:other|more|further|additional)? ?questions[^.!?\n]*)"
)
_FRAME_AFTER = re.compile(
    rf"(?:(?<=[.!?:;\"')])[ ]+|\n+){_END}[^.!?\n]{{0,60}}[.!?]*\Z"
    r"|\n+(?:(?:best|kind|warm)(?:est)? (?:regards|wishes)|regards|sincerely|yours(?: \w+)?|cheers|respectfully"
    r"|yours sincerely),?(?:\s+[^.!?\n]{1,40})?\Z"
    r"|\n+(?:--?|~)[ ]?(?:your|the|an?)\b[^.!?\n]{1,40}\Z|\n+--\s+[^.!?\n]{1,40}\Z",
    re.I,
)


_NUMBERS = re.compile(r"\A(?:\d{1,3}[.)] +)+")


def _unwrapped(text: str) -> str:
    """Without quotes around all of it, and without a bullet that is the only one or stands before everything."""
    inner = text[1:-1]
    if len(text) > 2 and text[0] == text[-1] == '"' and inner.count('"') % 2 == 0:
        before = inner.partition('"')[0][-1:]
        if '"' not in inner or not before or before in " \n(":
            return inner.strip()
    lines = text.split("\n\n")
    marked = [line[:2] in ("- ", "* ", "+ ", "\u2022 ") for line in lines]
    numbered = [bool(re.match(r"\d{1,3}[.)] ", line)) for line in lines]
    if numbered[0] and sum(numbered) == 1:
        return _NUMBERS.sub("", text).strip()
    if marked[0] and (all(marked) or not any(marked[1:])):
        return "\n\n".join(line[2:].strip() if mark else line for line, mark in zip(lines, marked, strict=True))
    return text


def body(text: str) -> str:
    """The normalised text without greeting, role, thanks, closing offer and signature; all of it if nothing else is
    there."""
    text = normalise(text)
    while True:
        inner = _unwrapped(text)
        # As often as there is one: what a broken model repeats a thousand times is not normalised a thousand times.
        while (frame := _FRAME_BEFORE.match(inner)) and inner[frame.end() :].strip():
            inner = inner[frame.end() :]
        inner = normalise(_FRAME_AFTER.sub("", inner))
        if not inner or inner == text:
            return text
        text = inner


_BEFORE = 30  # characters before a repeated request: a role, a quotation mark


def unasked(prompt: str, text: str) -> str:
    """An answer without the request that it repeats at its beginning ("User: ...", "You asked: ..."); all of it where
    nothing follows."""
    plain, asked = normalise(text), normalise(prompt)
    begin = plain[: len(asked) + _BEFORE].find(asked) if len(asked) > 10 else -1
    rest = plain[begin + len(asked) :].lstrip(" \n\"'.:") if begin >= 0 else ""
    return rest if _LETTERS.search(rest) else text
