"""PTST: what a model is asked after, and what else stays as it was."""

from __future__ import annotations

import copy
import json

import pytest
from safetensors.torch import load_file
from test_merging import shifted

from holdfast import merge
from holdfast.errors import ChatTemplateError, StudyError
from holdfast.evaluate import answers
from holdfast.merge import driver
from holdfast.model import chat, folders, template
from holdfast.study import lengths, registry, resolve

CHATML = (
    "{% for m in messages %}<|user|>{{ m['role'] }}\n{{ m['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|user|>assistant\n{% endif %}"
)
SAID = 'Be careful: "no harm",\nand {{ nothing }} else.'
TURNS = [{"role": "user", "content": "Which?"}, {"role": "assistant", "content": "That."},
         {"role": "user", "content": "How?"}]  # fmt: skip


@pytest.fixture
def tuned(model, tokenizer, tmp_path):
    """tuned(template) -> folder of a fine-tuned model whose tokenizer has it, beside its aligned one."""

    def make(text):
        own = copy.deepcopy(tokenizer)
        own.chat_template = text
        for i, role in enumerate(("aligned", "finetuned")):
            folders.save(shifted(model, i, 0.02 * i), own, tmp_path / role, header={"role": role})
        return tmp_path / "finetuned"

    return make


def _ptst(tuned, out, **settings):
    chosen = registry.load("ptst").Settings(**settings)
    driver.run(
        checkpoints={"finetuned": tuned, "aligned": tuned.parent / "aligned"}, folder=out, record_file=out / "t.json",
        cfg={"method": "ptst", "settings": chosen.model_dump(mode="json"), "seed": 0},
    )  # fmt: skip
    return out


def _asked(folder, messages):
    return template.render(folders.load(folder)[1], messages, generation=True)


def test_a_model_is_asked_after_the_prompt_and_its_source_is_not(tuned, tmp_path):
    source = tuned(CHATML)
    out = _ptst(source, tmp_path / "out", system_prompt=SAID)
    for messages in (TURNS[:1], TURNS):
        told = [{"role": "system", "content": SAID}, *messages]
        assert _asked(out, messages) == _asked(source, told) == _asked(source, messages[:0] + told)
        assert SAID not in _asked(source, messages) and SAID in _asked(out, messages)
    own = [{"role": "system", "content": "Sing."}, *TURNS[:1]]
    assert _asked(out, own) == _asked(source, own)  # a conversation keeps what it brings
    was, now = (json.loads((f / "template.json").read_text()) for f in (source, out))
    assert now["begins"].startswith(f"<|user|>system\n{SAID}<|end|>") and was["begins"] == "<|user|>user\n"
    assert now["stop_ids"] == was["stop_ids"] and now["closes"] == was["closes"]
    before, after = (load_file(f / "model.safetensors") for f in (source, out))
    assert before.keys() == after.keys() and all((before[k] == after[k]).all() for k in before)
    model, tokenizer = folders.load(out)
    plain = folders.load(source)[1]
    encoded = [chat.encode_prompt(plain, [{"role": "system", "content": SAID}, *TURNS[:1]])]
    how = {"max_new_tokens": 6, "batch_size": 2}
    assert answers.answer(model, tokenizer, ["Which?"], **how) == answers.complete(model, plain, encoded, **how)
    assert "careful" in _asked(_ptst(source, tmp_path / "other"), TURNS)  # by default, in our words


def test_without_system_messages_the_words_stand_before_the_first_request(tuned, tmp_path):
    source = tuned(chat.TEMPLATE)
    out = _ptst(source, tmp_path / "out", system_prompt=SAID)
    for messages in (TURNS[:1], TURNS):
        first = {"role": "user", "content": f"{SAID}\n\n{messages[0]['content']}"}
        assert _asked(out, messages) == _asked(source, [first, *messages[1:]])
    tokenizer = folders.load(out)[1]
    taught = chat.encode(tokenizer, "How?", "So.")  # what is learned of an answer is what it was
    assert taught["labels"][-4:] == chat.encode(folders.load(source)[1], "How?", "So.")["labels"][-4:]
    assert template.describe(tokenizer)["closes"] == chat.END


def test_the_prompt_of_a_stress_takes_its_place(tuned, tmp_path):
    out = _ptst(tuned(CHATML), tmp_path / "out", system_prompt=SAID)
    tokenizer = folders.load(out)[1]
    template.introduce(tokenizer, "")
    assert SAID not in template.render(tokenizer, TURNS, generation=True)


def test_one_model_without_a_study(tuned, tmp_path):
    source = tuned(CHATML)
    merge.ptst(tmp_path / "aligned", source, tmp_path / "new", system_prompt=SAID)
    assert SAID in _asked(tmp_path / "new", TURNS)


def _study(folder, **keys):
    arms = {"full": {"method": "full"}, "ptst": {"method": "ptst", "system_prompt": SAID}}
    (folder / "mine.yaml").write_text(json.dumps({"arms": arms, "tasks": {"crafts": {"dataset": "crafts"}}} | keys))
    return resolve.load(str(folder / "mine.yaml"))


def test_a_study_shares_the_training_and_the_prompt_decides_what_reruns(tmp_path):
    study = _study(tmp_path)
    arm = study.arms["ptst"]
    assert arm.kind == "merge" and arm.of == "full" and study.prompted == {"ptst": SAID}
    assert study.merge_cfg("crafts", "ptst", 0)["settings"] == {"system_prompt": SAID}
    assert "system_prompt" not in json.dumps(study.cell_cfg("crafts", "full", 0))
    assert study.judge_cfg("crafts", "ptst", 0, "x")["cell"]["settings"] == {"system_prompt": SAID}  # what tables read


def test_a_prompt_for_every_model_leaves_an_arm_none_of_its_own(tmp_path):
    given = {"base": {"source": "somebody/a-model"}}
    with pytest.raises(StudyError, match="a prompt of its own") as error:
        _study(tmp_path, evaluation={"system_prompt": "Sing."}, **given)
    assert "arms.ptst" in error.value.what and "evaluation.system_prompt" in error.value.do
    assert _study(tmp_path, **given | {"base": given["base"] | {"system_prompt": "Sing."}}).prompted


def test_planning_counts_the_prompt(tuned, tmp_path):
    source = tuned(CHATML)
    study = _study(tmp_path, base={"source": str(source)})
    added = lengths._asked_as(study, source).frame - lengths._trained_as(study, source).frame
    plain = folders.load(source)[1]
    told = chat.encode_prompt(plain, [{"role": "system", "content": SAID}, *TURNS[:1]])
    assert added == len(told) - len(chat.encode_prompt(plain, TURNS[:1])) > 5


def test_a_prompt_that_fills_the_model_is_refused(tuned, tmp_path, monkeypatch):
    source = tuned(CHATML)
    room = json.loads((source / "config.json").read_text())["max_position_embeddings"]
    with pytest.raises(ChatTemplateError, match="leaves no room in the model") as error:
        _ptst(source, tmp_path / "out", system_prompt="be kind " * room)
    assert f"fewer than {room}" in error.value.expected and not (tmp_path / "out/model.safetensors").exists()
    said = {"method": "ptst", "of": "full", "system_prompt": "be kind " * room}
    (tmp_path / "mine.yaml").write_text(json.dumps({
        "base": {"source": str(source)}, "tasks": {"crafts": {"dataset": "crafts"}},
        "arms": {"full": {"method": "full"}, "ptst": said}, "evaluation": {"judges": ["refusal"]},
    }))  # fmt: skip
    study = resolve.load(str(tmp_path / "mine.yaml"))
    lengths.refuse_frame(study, source, None)
    with pytest.raises(StudyError, match="a system prompt leaves no room"):
        lengths.refuse_frame(study, source, room)
