"""PTST: `get_prompt_template` of the authors' `prompt_utils.py`, which imports nothing and is run whole, against the
template that `ptst` writes, for a tokenizer whose template has the marks of Llama 2.
"""

from __future__ import annotations

import sys

from holdfast.model import chat, template
from holdfast.world.model import train_tokenizer
from parity import code

REPOSITORY, COMMIT = "vfleaking/PTST", "fa6386aa555603de596769e1f02438e85cfad9f3"
# One system message, then one request, as Llama 2's own template writes them.
LLAMA_2 = (
    "{% set ask = messages[-1]['content'] %}{% if messages[0]['role'] == 'system' %}"
    "{% set ask = '<<SYS>>\n' + messages[0]['content'] + '\n<</SYS>>\n\n' + ask %}{% endif %}[INST] {{ ask }} [/INST]"
)


def _asked(prompt: str, request: str, marks: str) -> str:
    tokenizer = train_tokenizer([chat.render(request, request)] * 5, 100)
    tokenizer.chat_template = marks
    template.introduce(tokenizer, prompt, anyhow=True)
    return template.render(tokenizer, [{"role": "user", "content": request}], generation=True)


def compare(theirs: code.Code) -> list[code.Row]:
    prompts, rows = theirs.module("prompt_utils.py"), []
    for style, words in (
        ("gsm:chat:llama", prompts.LLAMA_BASE_PROMPT),
        ("gsm:chat:llama-short", prompts.LLAMA_SHORT_PROMPT),
        ("gsm:chat:mpt", prompts.MPT_PROMPT),
    ):
        want = prompts.get_prompt_template(style) % "How far?"
        ours = _asked(words, "Question: How far?", LLAMA_2)
        rows.append(
            code.Row(
                f"characters of {style} that differ",
                float(sum(a != b for a, b in zip(ours, want, strict=False)) + abs(len(ours) - len(want))),
                0,
                "none",
            )
        )
    ours = _asked(prompts.MPT_PROMPT, "Question: How far?", "{{ messages[0]['content'] }}")
    rows.append(
        code.Row(
            "characters more in theirs, a template without system messages",
            float(len(want) - len(ours)),
            40,
            "the words and an empty line stand before the request; theirs writes Llama 2's marks for every model",
        )
    )
    return rows


if __name__ == "__main__":
    sys.exit(code.main(sys.modules[__name__]))
