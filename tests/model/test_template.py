"""The contract of a chat template, over the forms that published models have and those that break it."""

from __future__ import annotations

import copy
import datetime

import pytest

from holdfast.errors import ChatTemplateError
from holdfast.model import chat, contract, folders, template
from holdfast.record import jsonfiles

TURNS = "{% for m in messages %}"
FORMS = {  # form -> (template, how an answer is closed)
    "chatml": (TURNS + "<|user|>{{ m['role'] }}\n{{ m['content'] }}<|end|>\n{% endfor %}{% if add_generation_prompt %}<|user|>assistant\n{% endif %}", "<|end|>"),
    "turn token that is not the end of text": ("{{ bos_token }}" + TURNS + "{% if m['role'] == 'user' %}<|user|>{{ m['content'] }}<|turn|>\n{% else %}<|assistant|>{{ m['content'] }}<|turn|>\n{% endif %}{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}", "<|turn|>"),
    "end of text": ("{{ bos_token }}" + TURNS + "{% if m['role'] == 'user' %}[INST] {{ m['content'] }} [/INST]{% else %} {{ m['content'] }}{{ eos_token }}{% endif %}{% endfor %}", "<|end|>"),
    "blank before the end": (TURNS + "{% if m['role'] == 'user' %}<|user|>{{ m['content'] }}{% else %}<|assistant|>{{ m['content'] }} {{ eos_token }}{% endif %}{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}", "<|end|>"),
    "default system prompt": ("{% if messages[0]['role'] != 'system' %}<|user|>system\nYou help.<|turn|>{% endif %}" + TURNS + "<|user|>{{ m['role'] }}\n{{ m['content'] }}<|turn|>{% endfor %}{% if add_generation_prompt %}<|user|>assistant\n{% endif %}", "<|turn|>"),
}  # fmt: skip


@pytest.fixture
def tok(tokenizer):
    own = copy.deepcopy(tokenizer)
    own.add_special_tokens({"additional_special_tokens": ["<|turn|>"]})
    return own


def use(tok, text):
    tok.chat_template = text
    return tok


@pytest.mark.parametrize("form", [f for f in FORMS if f != "end of text"])
def test_what_closes_an_answer_stops_generation_and_is_learned(tok, form):
    text, closer = FORMS[form]
    use(tok, text)
    (wanted,) = tok(closer, add_special_tokens=False)["input_ids"]
    assert template.closing(tok) == wanted
    assert template.stop_ids(tok) == sorted({wanted, tok.eos_token_id})
    labels = chat.encode(tok, "How?", "So.")["labels"]
    assert wanted in labels
    found = template.describe(tok)
    assert found["closes"] == closer and wanted in found["stop_ids"]


def test_a_template_without_a_header_of_the_assistant_is_one_and_says_so(tok):
    """As Llama 2's: what closes the request is where an answer begins."""
    use(tok, FORMS["end of text"][0])
    found = template.describe(tok)
    assert template.closing(tok) == tok.eos_token_id and not found["adds_a_header"]
    assert template.describe(use(tok, FORMS["chatml"][0]))["adds_a_header"]


@pytest.mark.parametrize("configured", [None, 7, [7, 9], (9,)])
def test_stop_ids_come_from_tokenizer_template_and_the_models_own_configuration(tok, configured):
    use(tok, FORMS["turn token that is not the end of text"][0])
    extra = {configured} if isinstance(configured, int) else set(configured or ())
    assert set(template.stop_ids(tok, configured)) == {tok.eos_token_id, template.closing(tok), *extra}


def test_plain_text_judges_have_stops_without_a_template(tok):
    tok.chat_template = None
    assert template.stop_ids(tok, 5) == sorted({5, tok.eos_token_id})


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (None, "no chat template"),
        (TURNS + "{{ m['content'] }}\n{% endfor %}", "never stop"),
        (TURNS + "{{ m['role'] }}: {{ m['content'] }}\n\n{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}", "never stop"),
        (TURNS + "{{ m['content'] }}STOP{% endfor %}", "never stop"),
        ("{{ raise_exception('a system message, please') }}", "a system message, please"),
        ("{% if messages[0]['role'] != 'system' %}{{ raise_exception('system first') }}{% endif %}", "system first"),
        ("{{ messages[0]['content'] + 1 }}", "cannot render"),
        ("{{ messages[0]['tool_calls'][0]['name'] }}", "cannot render"),
        ("{% for m in messages %}", "cannot render"),
        ("hello{{ eos_token }}", "does not write the turns"),
        (TURNS + "{{ m['content'] | upper }}{{ eos_token }}{% endfor %}", "does not write the turns"),
    ],
)  # fmt: skip
def test_a_template_that_breaks_the_contract_is_one_block(tok, text, says):
    use(tok, text)
    with pytest.raises(ChatTemplateError) as error:
        chat.encode(tok, "How?", "So.")
    assert says in error.value.block() and "\n  do:" in error.value.block()


def test_a_template_in_which_the_prompt_changes_is_refused(tok):
    use(tok, "{{ messages | length }}" + FORMS["chatml"][0])
    with pytest.raises(ChatTemplateError, match="differently once an answer follows"):
        template.describe(tok)


def test_text_begins_once(tok):
    use(tok, "{{ bos_token }}{{ bos_token }}" + FORMS["chatml"][0])
    with pytest.raises(ChatTemplateError, match="twice"):
        template.describe(tok)


def test_the_beginning_token_may_also_begin_every_turn(tok):
    """ChatML with `<|im_start|>` as the tokenizer's beginning of text, as SmolLM2 has it."""
    tok.bos_token = "<|user|>"
    found = template.describe(use(tok, FORMS["chatml"][0]))
    assert found["begins"].startswith("<|user|>") and found["ends"].count("<|user|>") == 1
    e = chat.encode(tok, "How?", "So.")
    assert e["input_ids"].count(tok.bos_token_id) == 2 and tok.bos_token_id not in e["labels"]


@pytest.mark.parametrize("form", ["%d %b %Y", "%Y-%m-%d %H:%M:%S", "%A"])
def test_no_clock_enters_a_prompt(tok, form, monkeypatch):
    use(tok, f"{{{{ strftime_now('{form}') }}}}" + FORMS["chatml"][0])
    first = chat.encode(tok, "How?", "So.")

    class Later(datetime.datetime):
        @classmethod
        def now(cls, tz=None):
            return cls(2031, 5, 17, 23, 59, tzinfo=tz)

    monkeypatch.setattr("transformers.utils.chat_template_utils.datetime", Later, raising=False)
    assert chat.encode(tok, "How?", "So.") == first
    assert template.render(tok, [{"role": "user", "content": "x"}], generation=True).startswith(
        template.DATE.strftime(form)
    )
    assert template.describe(tok)["date"] == template.DATE.isoformat()


def test_a_clock_that_cannot_be_fixed_is_one_block(tok):
    use(tok, "{% set form = '%d' %}{{ strftime_now(form) }}" + FORMS["chatml"][0])
    with pytest.raises(ChatTemplateError, match="reads the clock"):
        chat.encode(tok, "How?", "So.")


def test_a_question_whether_there_is_a_clock_asks_nothing(tok):
    """As in Llama 3.2's template: the date only where it is given."""
    use(
        tok,
        "{% if strftime_now is defined %}{{ strftime_now('%d %b %Y') }}{% else %}26 Jul 2024{% endif %}"
        + FORMS["chatml"][0],
    )
    assert template.render(tok, [{"role": "user", "content": "x"}], generation=True).startswith("01 Jan 2025")


def test_what_was_found_is_described(tok):
    use(tok, FORMS["default system prompt"][0])
    found = template.describe(tok, [3])
    assert found["begins"] == "<|user|>system\nYou help.<|turn|><|user|>user\n" and found["adds_a_system_prompt"]
    assert found["ends"] == "<|turn|><|user|>assistant\n" and found["closes"] == "<|turn|>"
    assert found["takes_a_system_message"] and not found["thinks"] and found["date"] is None and 3 in found["stop_ids"]
    use(tok, "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no') }}{% endif %}" + FORMS["chatml"][0])
    assert not template.describe(tok)["takes_a_system_message"]


def test_another_template_of_the_same_tokenizer_is_looked_at_anew(tok):
    use(tok, FORMS["chatml"][0])
    first = template.closing(tok)
    assert template.closing(use(tok, FORMS["turn token that is not the end of text"][0])) != first


def test_a_saved_model_says_what_its_template_does_and_planning_reads_the_same(model, tok, tmp_path):
    use(tok, FORMS["turn token that is not the end of text"][0])
    model.resize_token_embeddings(len(tok))
    folders.save(model, tok, tmp_path / "m", header={})
    kept = jsonfiles.read_json(tmp_path / "m/template.json")
    assert kept == template.of_folder(tmp_path / "m") and template.closing(tok) in kept["stop_ids"]
    contract.check(tmp_path / "m")
    (tmp_path / "m/chat_template.jinja").write_text(TURNS + "{{ m['content'] }}{% endfor %}")
    with pytest.raises(ChatTemplateError, match="never stop"):
        contract.check(tmp_path / "m")


@pytest.mark.parametrize("change", ["[:40]", " | replace('\n', ' ')", " | striptags", " | wordwrap(60)"])
def test_a_template_that_changes_a_longer_turn_is_refused(tok, change):
    """Two short words say nothing of it, and training rows would lose text."""
    form = FORMS["chatml"][0].replace("{{ m['content'] }}", f"{{{{ (m['content']){change} }}}}")
    with pytest.raises(ChatTemplateError, match="does not write the turns") as error:
        template.describe(use(tok, form))
    assert "to the letter" in error.value.expected


def test_a_template_that_drops_thoughts_says_so_and_refuses_rows_that_have_some(tok):
    dropped = FORMS["chatml"][0].replace("{{ m['content'] }}", "{{ m['content'].split('</think>')[-1].lstrip() }}")
    assert template.describe(use(tok, FORMS["chatml"][0]))["keeps_thoughts"]
    thought = "<think>Hm.</think>\nSo."
    assert chat.encode(tok, "How?", thought)["labels"]
    assert not template.describe(use(tok, dropped))["keeps_thoughts"]
    assert chat.encode(tok, "How?", "So.")["labels"]
    with pytest.raises(ChatTemplateError, match="drops what stands before"):
        chat.encode(tok, "How?", thought)


SYSTEMS = ["Be brief.", "", 'Two lines,\n\nwith "quotes", \\ back slashes, {{ braces }}, {% signs %} and é 🙂.']


def written(tok, messages):
    return template.render(tok, messages, generation=True)


@pytest.mark.parametrize("form", ["chatml", "default system prompt", "begins with a line end"])
@pytest.mark.parametrize("system", SYSTEMS)
def test_an_introduction_is_what_a_system_message_would_have_been(tok, form, system):
    text = FORMS[form][0] if form in FORMS else "\n" + FORMS["chatml"][0]
    use(tok, text)
    turns = [{"role": "user", "content": "How?"}, {"role": "assistant", "content": "So."}]
    told = [{"role": "system", "content": system}, *turns]
    expected = [written(tok, told[:n]) for n in (2, 3)]
    other = written(tok, [{"role": "system", "content": "Other."}, *turns])
    before = written(tok, turns)
    template.introduce(tok, None)
    assert tok.chat_template == text
    template.introduce(tok, "first of two")
    template.introduce(tok, system)
    assert [written(tok, turns[:n]) for n in (1, 2)] == expected and expected[1] != before
    assert (
        written(tok, told) == expected[1] and written(tok, [{"role": "system", "content": "Other."}, *turns]) == other
    )
    assert template.describe(tok)["begins"] == expected[0].partition("How?")[0]


def test_an_introduction_is_saved_with_the_tokenizer(tok, tmp_path):
    use(tok, FORMS["chatml"][0])
    template.introduce(tok, SYSTEMS[-1])
    tok.save_pretrained(tmp_path)
    again = template.tokenizer_of(tmp_path)
    assert chat.encode_prompt(again, "How?") == chat.encode_prompt(tok, "How?")
    assert SYSTEMS[-1] in written(again, [{"role": "user", "content": "How?"}])


@pytest.mark.parametrize(
    "text",
    [
        chat.TEMPLATE,  # would write it as an answer
        TURNS + "{% if m['role'] != 'assistant' %}<|user|>{% endif %}{{ m['content'] }}<|end|>{% endfor %}",
        TURNS + "{% if m['role'] != 'system' %}<|user|>{{ m['content'] }}<|end|>{% endif %}{% endfor %}",
        "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
        + FORMS["chatml"][0],
    ],
    ids=["as an answer", "as a request", "not at all", "refused"],
)
def test_a_template_without_system_messages_takes_no_system_prompt(tok, text):
    use(tok, text)
    for system in SYSTEMS:
        with pytest.raises(ChatTemplateError, match="does not write system messages"):
            template.introduce(tok, system)
    assert tok.chat_template == text


ROLES = ["user", "assistant", "user"]


@pytest.mark.parametrize("roles", [ROLES, ["system", "user"], ["system", *ROLES], ROLES * 2])
def test_conversations_that_are_written_whole_are_taken(tok, roles):
    use(tok, FORMS["chatml"][0])
    template.check_turns(tok, roles)
    template.check_turns(tok, roles)


@pytest.mark.parametrize(
    ("text", "roles", "says"),
    [
        ("{{ messages[-1]['content'] }}", ROLES, "every turn"),
        ("{{ messages[0]['content'] }}{{ messages[-1]['content'] }}", ROLES, "every turn"),
        (TURNS.replace("messages", "messages|reverse") + "{{ m['content'] }}{% endfor %}", ROLES, "every turn"),
        (TURNS + "{% if m['role'] != 'system' %}{{ m['content'] }}{% endif %}{% endfor %}", ["system", "user"], "every turn"),
        (chat.TEMPLATE, ["system", "user"], "does not write system messages"),
        (TURNS + "{% if loop.index > 2 %}{{ raise_exception('one question only') }}{% endif %}{{ m['content'] }}{% endfor %}",
         ROLES, "cannot render"),
    ],
    ids=["the last only", "the first and the last", "backwards", "no system", "a system message as an answer", "refused"],
)  # fmt: skip
def test_a_template_that_does_not_write_a_conversation_is_refused(tok, text, roles, says):
    use(tok, text)
    with pytest.raises(ChatTemplateError, match=says):
        template.check_turns(tok, roles)


def test_a_system_message_of_a_row_goes_before_an_introduction(tok):
    use(tok, FORMS["chatml"][0])
    own = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "How?"}]
    before, alone = written(tok, own), written(tok, own[1:])
    template.introduce(tok, "Be kind.")
    assert written(tok, own) == before and "Be kind." in written(tok, own[1:]) != alone
