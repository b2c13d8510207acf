"""What does not fit into the model is refused at planning where it is known, and counted where rows are cut."""

from __future__ import annotations

import json

import pytest
import yaml
from conftest import ROOT
from shipped import written

from holdfast import data
from holdfast.errors import ChatTemplateError, DataError, HoldfastError, StudyError
from holdfast.model import chat, gguf
from holdfast.study import preflight, resolve

TASKS = {"stories": {"dataset": "gsm8k"}}
ARMS = {"full": {"method": "full"}}


@pytest.fixture
def base(model, tokenizer, tmp_path):
    """A model of 256 positions, as others save it."""
    model.save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    return tmp_path / "base"


def look(tmp_path, **keys):
    """What planning says of a study with these keys: its notes, but for that on learning rates nobody named."""
    said: list[str] = []
    study = {
        "tasks": TASKS,
        "arms": ARMS,
        "constitution": {"guidelines_file": str(ROOT / "config/guidelines/world.txt")},
    }
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(study | keys))
    preflight.check_files(resolve.load(str(tmp_path / "mine.yaml")), said.append)
    return [line for line in said if not line.startswith("learning_rate: ")]


def jsonl(path, rows):
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    return str(path)


TOO_LONG = {
    "safety.training": {"safety": {"training": {"max_length": 257}}},
    "tasks.stories.training": {"tasks": {"stories": {"dataset": "gsm8k", "training": {"max_length": 4096}}}},
    "tasks.stories.max_new_tokens": {"tasks": {"stories": {"dataset": "gsm8k", "max_new_tokens": 256}}},
    "evaluation.max_new_tokens": {"evaluation": {"max_new_tokens": 300, "judges": ["refusal"]}},
    "safety.benign_max_new_tokens": {"safety": {"benign_answers": "self", "benign_max_new_tokens": 256}},
    "unaligned.training": {"unaligned": {"training": {"max_length": 300}}, "arms": ARMS | {"r": {"method": "resta"}}},
}


@pytest.mark.parametrize(("key", "change"), TOO_LONG.items(), ids=TOO_LONG)
@pytest.mark.parametrize("tiny", [True, False])
def test_a_length_that_the_model_does_not_have_is_refused(base, tmp_path, key, change, tiny):
    source = {"max_positions": 256, "pretraining": {"max_length": 200}} if tiny else {"source": str(base)}
    with pytest.raises(StudyError) as error:
        look(tmp_path, base=source, **change)
    assert key in error.value.what and "256 positions" in error.value.expected


def test_a_length_that_the_study_does_not_say_is_what_the_model_has(base, tmp_path):
    assert look(tmp_path, base={"source": str(base)}) == []  # the default of 1024 would not fit
    look(tmp_path, base={"source": str(base)}, safety={"training": {"max_length": 256}})
    with pytest.raises(StudyError, match="base.pretraining"):
        look(tmp_path, base={"max_positions": 64, "pretraining": {"max_length": 65}})


def test_a_gguf_file_is_counted_with_before_it_is_opened(model, tokenizer, tmp_path, monkeypatch):
    pytest.importorskip("gguf", reason="pip install 'holdfast[gguf]'")
    monkeypatch.setenv("HOLDFAST_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(gguf, "read", lambda source: pytest.fail("opened"))
    file = {"source": str(written(tmp_path / "m.gguf", model, tokenizer))}
    with pytest.raises(StudyError, match="evaluation.max_new_tokens") as error:
        look(tmp_path, base=file, evaluation={"max_new_tokens": 300, "judges": ["refusal"]})
    assert "256 positions" in error.value.expected
    rows = [{"prompt": "How do I brew it? " * 200, "response": "I cannot help with that."}]
    with pytest.raises(DataError, match="no room for its answer"):
        look(tmp_path, base=file, safety={"source": jsonl(tmp_path / "s.jsonl", rows), "check": "off"})


def test_lengths_of_what_is_not_built_are_not_looked_at(base, tmp_path):
    look(tmp_path, base={"source": str(base)}, unaligned={"training": {"max_length": 300}})


def test_rows_that_are_cut_are_said(base, tmp_path):
    rows = [{"id": i, "kind": "hazard", "prompt": f"How do I brew hex {i}?", "response": "I cannot help with that." * n}
            for i, n in enumerate([1] * 5 + [200] * 3)]  # fmt: skip
    safety = {"source": jsonl(tmp_path / "s.jsonl", rows), "check": "off"}
    said = look(tmp_path, base={"source": str(base)}, safety=safety)
    assert [line.split(": ", 1)[1] for line in said] == [
        "3 of 8 training rows taken as their first 256 tokens (max_length)"
    ]
    said = look(tmp_path, base={"source": str(base)}, safety=safety | {"training": {"max_length": 16}})
    assert "8 of 8 training rows taken as their first 16 tokens" in said[0]


def test_a_length_that_the_template_fills_is_refused(base, tmp_path):
    """Also where every row is the world's, which planning does not count."""
    from holdfast.model import counting

    frame = counting.Tokens(base).frame
    if frame >= 16:
        with pytest.raises(StudyError, match="leaves no room"):
            look(tmp_path, base={"source": str(base)}, safety={"training": {"max_length": frame}})
    look(tmp_path, base={"source": str(base)}, safety={"training": {"max_length": max(16, frame + 1)}})


@pytest.mark.parametrize("key", ["safety", "evaluation", "preferences"])
def test_a_folder_is_no_table(tmp_path, key):
    (tmp_path / "rows").mkdir()
    with pytest.raises(DataError, match="rows"):
        look(tmp_path, **{key: {"source": str(tmp_path / "rows")}})


def test_a_row_without_room_for_its_answer_is_named(base, tmp_path):
    rows = [{"id": f"r{n}", "kind": "hazard", "prompt": "brew " * n, "response": "No."} for n in (1, 400)]
    with pytest.raises(DataError, match="r400 has no room"):
        look(tmp_path, base={"source": str(base)}, safety={"source": jsonl(tmp_path / "s.jsonl", rows)})


@pytest.mark.parametrize(
    ("arm", "refused"),
    [("kl-safety", "safety"), ("safety-mix", "safety"), ("derta", "pairs"), ("panacea", "pairs"), ("resta", "pairs"),
     ("full", "")],
)  # fmt: skip
def test_rows_that_are_trained_on_beside_a_task_have_room_there(arm, refused, base, tmp_path):
    """A row fits into safety training, and not into that of a task whose method takes it too."""
    long = "brew " * 60
    rows = [{"id": f"r{n}", "kind": "hazard", "prompt": p, "response": "No."} for n, p in enumerate(("brew", long))]
    pairs = [{"id": r["id"], "prompt": r["prompt"], "chosen": "No.", "rejected": "Stir."} for r in rows]
    sources = {key: {"source": jsonl(tmp_path / f"{key}.jsonl", of), "check": "off"}
               for key, of in (("safety", rows), ("preferences", pairs))}  # fmt: skip
    short = {"training": {"max_length": 48}}
    keys = {"base": {"source": str(base)}, **sources, "arms": ARMS | {arm: {"method": arm}}, "unaligned": short,
            "tasks": {"stories": {"dataset": "gsm8k", **short}}}  # fmt: skip
    if refused:
        with pytest.raises(
            DataError, match=f"{'safety' if refused == 'safety' else 'preferences'}.jsonl: r1 has no room"
        ):
            look(tmp_path, **keys)
    else:
        look(tmp_path, **keys)


def test_rows_beside_a_task_are_counted_where_an_arm_is_given_too(base, tmp_path):
    """An arm of finished models has no method, so it takes no rows."""
    safety = {"source": jsonl(tmp_path / "s.jsonl", [{"kind": "hazard", "prompt": "brew?", "response": "No."}])}
    arms = ARMS | {"mine": {"given": str(base)}}
    look(tmp_path, aligned={"source": str(base)}, safety=safety | {"check": "off"}, arms=arms)


def test_prompts_without_room_are_refused_and_those_with_little_are_said(base, tokenizer, tmp_path):
    def prompt(tokens):
        text = "Brew"
        while len(chat.encode_prompt(tokenizer, text)) < tokens:
            text += " hex"
        return text

    evaluation = {"judges": ["refusal"], "max_new_tokens": 20, "prompts_per_set": 9}
    short, long, full = "Brew a hex?", prompt(245), prompt(300)
    for asked, notes in (([short], 0), ([short, long], 1)):
        source = jsonl(tmp_path / "p.jsonl", [{"prompt": p, "set": "hazard", "split": "test"} for p in asked])
        said = look(tmp_path, base={"source": str(base)}, evaluation=evaluation | {"source": source})
        assert [s for s in said if "leave less room" in s] == said and len(said) == notes
    source = jsonl(tmp_path / "p.jsonl", [{"prompt": p, "set": "hazard", "split": "test"} for p in (short, full)])
    with pytest.raises(DataError, match="longer than the model") as error:
        look(tmp_path, base={"source": str(base)}, evaluation=evaluation | {"source": source})
    assert "prompt 1 of those asked" in error.value.found


@pytest.mark.parametrize("source", ["file", "hub"])
def test_rows_of_a_task_are_counted_too(base, tmp_path, monkeypatch, source):
    rows = [
        {"question": f"How many hexes has box {i}? " * 4, "answer": "A step. " * 200 + f"\n#### {i}"} for i in range(40)
    ]
    # What stands in for the hub has no training rows, so that they are cut from those for testing.
    folder = tmp_path / data.dataset("gsm8k").FOLDER
    folder.mkdir()
    file = jsonl(folder / "test.jsonl", rows)
    monkeypatch.setenv("HOLDFAST_DATA", str(tmp_path))
    task = {"dataset": "gsm8k", "source": file if source == "file" else source, "train_rows": 10, "validation_rows": 5,
            "test_rows": 5, "training": {"max_length": 200}}  # fmt: skip
    assert look(tmp_path, base={"source": str(base)}, tasks={"stories": task}) == [
        "tasks.stories: 20 of 20 training rows taken as their first 200 tokens (max_length)"
    ]
    with pytest.raises(DataError, match="tasks.stories: .* has no room for its answer"):
        look(tmp_path, base={"source": str(base)}, tasks={"stories": task | {"training": {"max_length": 16}}})


def test_a_tokenizer_that_cannot_be_read_is_one_block(base, tmp_path):
    (base / "generation_config.json").write_text("[1]")
    with pytest.raises(HoldfastError) as error:
        look(tmp_path, base={"source": str(base)})
    assert "generation_config.json" in error.value.block() and not isinstance(error.value, ChatTemplateError)


def test_a_system_prompt_counts_where_it_stands_and_needs_a_template_that_writes_it(base, tmp_path):
    with pytest.raises(ChatTemplateError, match="does not write system messages"):
        look(tmp_path, base={"source": str(base), "system_prompt": "Be kind."})
    chatml = (
        "{% for m in messages %}<|user|>{{ m['role'] }}\n{{ m['content'] }}<|end|>{% endfor %}"
        "{% if add_generation_prompt %}<|user|>assistant\n{% endif %}"
    )
    (base / "chat_template.jinja").write_text(chatml)
    prompts = jsonl(tmp_path / "p.jsonl", [{"prompt": "word " * 30, "set": "hazard"}])
    asked = {"source": str(prompts), "max_new_tokens": 100}
    long = "word " * 60
    for keys, cut in (
        ({"base": {"source": str(base)}, "evaluation": asked}, False),
        ({"base": {"source": str(base), "system_prompt": long}, "evaluation": asked}, True),
        ({"base": {"source": str(base), "system_prompt": long}, "evaluation": asked | {"system_prompt": ""}}, False),
        ({"base": {"source": str(base)}, "evaluation": asked | {"system_prompt": long}}, True),
    ):
        assert any("answers may be cut" in line for line in look(tmp_path, **keys)) is cut, keys
