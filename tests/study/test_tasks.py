"""`dataset: table` in a study: its keys, the page that shows it, planning, and what reruns what."""

from __future__ import annotations

import json
import re
import runpy
from types import SimpleNamespace

import pytest
import yaml
from bad_input import GOOD
from conftest import ROOT

from holdfast.data import prepare, scorers, sources
from holdfast.errors import ChatTemplateError, DataError, StudyError
from holdfast.record import provenance, tables
from holdfast.study import preflight, resolve
from holdfast.study.tasks import Task

PAGE = (ROOT / "docs/tasks.md").read_text()
BLOCKS = dict(zip(("rows", "study", "scorer", "published"), re.findall(r"```\w+\n(.*?)```", PAGE, re.S), strict=True))
TASK = {"dataset": "table", "source": "rows.jsonl", "columns": {"prompt": "Q: {text}", "response": "label"},
        "scorer": "exact", "train_rows": 4, "validation_rows": 2, "test_rows": 2}  # fmt: skip
ROWS = [{"text": f"text {i}", "label": "ab"[i % 2]} for i in range(20)]
GUIDELINES = GOOD["constitution"]


def jsonl(path, rows):
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    return path


def load(tmp_path, task=None, rows=ROWS, **keys):
    """A study of one table beside the file of its rows."""
    jsonl(tmp_path / "rows.jsonl", rows)
    study = {"tasks": {"t": TASK | (task or {})}, "arms": {"full": {"method": "full"}}, "constitution": GUIDELINES}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(study | keys))
    return resolve.load(str(tmp_path / "mine.yaml"))


def look(*args, **keys):
    said: list[str] = []
    preflight.check_files(load(*args, **keys), said.append)
    return said


def test_the_example_of_the_page_is_planned_and_prepared(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tickets.jsonl").write_text(BLOCKS["rows"])
    (tmp_path / "tickets.yaml").write_text(BLOCKS["study"])
    study = resolve.load("tickets.yaml", ROOT / "config")
    said: list[str] = []
    preflight.check_files(study, said.append)
    main = runpy.run_path(str(ROOT / "scripts/prepare_task.py"))["main"]
    cfg = study.task_data_cfg("tickets")
    main(SimpleNamespace(cfg=cfg, input={}, output=["tickets.parquet"], log=said.append))
    rows = tables.read("tickets.parquet", "table")
    assert [r["split"] for r in rows] == ["train"] * 6 + ["validation"] * 2 + ["test"] * 2
    assert all(r["prompt"].startswith("Which kind of message is this: repair, delivery or money?\n") for r in rows)
    assert {r["response"] for r in rows} == {"repair", "delivery", "money"}
    told = study.judge_cfg("tickets", "full", 0, "m")["cell"]["scorers"]["tickets"]
    row = next(r for r in rows if r["response"] == "money")
    score = scorers.scorer("table", told)
    assert score("It is about a payment.", row)["correct"] and not score("repair", row)["correct"]
    (tmp_path / "mine.py").write_text(BLOCKS["scorer"])
    own = {"python": str(tmp_path / "mine.py")}
    scorers.refuse("table", own, "x")
    desk = json.loads(row["row"])["desk"]
    assert scorers.scorer("table", own)(f"The {desk} does that.", row)["correct"]


def test_editors_take_every_form_of_the_page():
    from jsonschema import Draft202012Validator

    schema = Draft202012Validator(json.loads((ROOT / "config/schema.json").read_text()))
    study = yaml.safe_load(BLOCKS["study"])
    for scorer in ("exact", {"exact": {}}, {"label": ["a", "b"]}, {"label": {"a": [], "b": []}}, {"choice": "o"},
                   {"choice": ["a", "b"]}, {"number": {"marker": "#### "}}, {"json-field": "n"}, "boxed"):  # fmt: skip
        study["tasks"]["tickets"]["scorer"] = scorer
        assert not list(schema.iter_errors(study)), scorer
    for scorer in ("label", {"json_field": "n"}, {"label": 3}):
        study["tasks"]["tickets"]["scorer"] = scorer
        assert list(schema.iter_errors(study)), scorer


def test_every_scorer_and_dataset_of_the_page_is_there():
    from holdfast.study.tasks import Scorer

    shown = re.findall(r"^\| `(.+?)`", PAGE[PAGE.index("## Scorers") :], re.M)
    kinds = [yaml.safe_load(s) for s in shown if s != "scorer"]
    found = {next(iter(Scorer.model_validate(k).told())) for k in kinds}
    assert found == {f.alias or name for name, f in Scorer.model_fields.items()}
    for name in yaml.safe_load(BLOCKS["published"]):
        Task(dataset="table", source="x", **yaml.safe_load(BLOCKS["published"])[name])


def test_a_study_without_tables_says_nothing_of_them():
    """Its digests, and what is recorded of it, are as they were."""
    study = resolve.load("demo", ROOT / "config")
    told = json.dumps([study.dump()["tasks"], study.data_cfg(), study.judge_cfg("agnews", "full", 0, "m")])
    assert not [word for word in ('columns": null', "splits", "scorer", 'revision": null, "col') if word in told]
    assert list(study.task_data_cfg("agnews")) == [
        "world", "dataset", "source", "train_rows", "validation_rows", "test_rows"
    ]  # fmt: skip
    assert study.parts("agnews") == {} and study.scorer_files(study.study.tasks) == []


def test_another_scorer_trains_and_asks_nothing_again(tmp_path):
    one, other = (load(tmp_path, {"scorer": s}) for s in ({"label": {"a": [], "b": ["bee"]}}, "exact"))
    for cfg in ("task_data_cfg", "task_importance_cfg"):
        assert getattr(one, cfg)("t") == getattr(other, cfg)("t")
    assert one.cell_cfg("t", "full", 0) == other.cell_cfg("t", "full", 0)
    assert one.generation_cfg(["t"]) == other.generation_cfg(["t"])
    assert one.judge_cfg("t", "full", 0, "m") != other.judge_cfg("t", "full", 0, "m")
    stages = {name: provenance.code_files(ROOT / f"scripts/{name}.py") for name in ("finetune", "respond", "judge")}
    kinds = [sources.__file__.replace("sources", name) for name in ("kinds", "scorers", "boxed")]
    assert [{str(p) for p in files} & set(kinds) for files in stages.values()] == [set(), set(), set(kinds)]


def test_a_users_scorer_is_part_of_the_code_of_the_judging_stage(tmp_path):
    (tmp_path / "own.py").write_text("def score(text, row):\n    return True\n")
    study = load(tmp_path, {"scorer": {"python": "own.py"}})
    (file,) = study.scorer_files(["t"])
    assert file == str(tmp_path / "own.py")

    def digest():
        provenance._parsed.cache_clear()
        return provenance.code_digest(ROOT / "scripts/judge.py", provenance.PACKAGE / file)

    first = digest()
    (tmp_path / "own.py").write_text("def score(text, row):  # why\n    return True\n")
    assert digest() == first
    (tmp_path / "own.py").write_text("def score(text, row):\n    return False\n")
    assert digest() != first
    rules = (ROOT / "rules/evaluate.smk").read_text()
    assert rules.count('code("judge", *scorers(') == 3 == rules.count('code("judge"')
    assert "scorers(" not in "".join(
        (ROOT / f"rules/{n}.smk").read_text() for n in ("finetune", "prepare", "align", "basis")
    )


def test_a_study_is_judged_by_a_users_scorer(tmp_path):
    """Prepared rows and stored answers through the judging stage."""
    (tmp_path / "own.py").write_text(
        "def score(text, row):\n    return {'correct': row['label'] in text, 'parsed': 'p'}\n"
    )
    study = load(tmp_path, {"scorer": {"python": "own.py"}}, world={"seed": 3})
    cfg = study.task_data_cfg("t")
    tables.write(prepare.task_rows(cfg, tmp_path / "rows.jsonl"), tmp_path / "t.parquet", "table")
    tables.write(prepare.prompt_rows(study.prompts_cfg()), tmp_path / "prompts.parquet", "prompts")
    asked = [r for r in tables.read(tmp_path / "t.parquet", "table") if r["split"] == "test"]
    answers = [
        {"id": r["id"], "set": "task:t", "base_id": r["id"], "category": "task", "prompt": r["prompt"], "tokens": 1,
         "finish": "stop", "wrapper": "", "generation": "", "text": said}
        for r, said in zip(asked, (f"<think>{'ab'}</think>{asked[0]['response']}", "zzz"), strict=True)
    ]  # fmt: skip
    tables.write(answers, tmp_path / "r.parquet", "responses")
    main = runpy.run_path(str(ROOT / "scripts/judge.py"))["main"]

    class Files(dict):
        __getattr__ = dict.__getitem__

    files = {
        "responses": tmp_path / "r.parquet",
        "prompts": tmp_path / "prompts.parquet",
        "tasks": [tmp_path / "t.parquet"],
    }
    out = Files(verdicts=tmp_path / "v.parquet", metrics=tmp_path / "metrics.json")
    io = SimpleNamespace(cfg=study.judge_cfg("t", "full", 0, "m"), input=Files(files), output=out)
    main(io)
    found = tables.read(tmp_path / "v.parquet", "verdicts")
    assert [(r["judge"], r["outcome"], r["parsed"]) for r in found] == [
        ("table", "correct", "p"),
        ("table", "wrong", "p"),
    ]
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["metrics"]["utility/accuracy"] == 0.5 and metrics["scorers"] == {
        "t": {"python": str(tmp_path / "own.py")}
    }
    (tmp_path / "own.py").write_text("def score(text, row):\n    return None\n")
    with pytest.raises(DataError, match=f"own.py gives {asked[0]['id']} no score"):
        main(io)


# ---- keys -----------------------------------------------------------------------------------------

HUB = {"source": "hub:me/mine", "revision": "0" * 40}


@pytest.mark.parametrize(("keys", "says"), [
    ({"columns": None}, "needs columns and a scorer"), ({"scorer": None}, "needs columns and a scorer"),
    ({"columns": {"prompt": "a"}}, "say prompt and response, or messages"),
    ({"columns": {"messages": "m", "prompt": "a"}}, "say prompt and response, or messages"),
    ({"columns": {"messages": "{m}"}}, "without braces"),
    ({"columns": {"prompt": "{", "response": "a"}}, "names no column"),
    ({"columns": {"prompt": "a", "response": "b", "gold": "{}"}}, "names no column"),
    ({"columns": {"prompt": "a", "answer": "b"}}, "unknown key 'tasks.t.columns.answer'"),
    ({"columns": {"prompt": "a", "response": "b", "codes": []}}, "tasks.t.columns.codes"),
    ({"columns": {"prompt": "a", "response": "b", "codes": {0: 1}}}, "tasks.t.columns.codes"),
    ({"splits": {"train": True}}, "true and false are no shares"), ({"splits": {"train": [1]}}, "tasks.t.splits"),
    ({"source": "world"}, "a table is a file"), ({"source": "hub"}, "a table is a file"),
    ({"source": "hub:mine"}, "hub:OWNER/NAME"), ({"source": "hub:me/mine"}, "say its commit"),
    ({"revision": "0" * 40}, "the source is none"), (HUB | {"revision": "main"}, "tasks.t.revision"),
    ({"splits": {"train": 0.5, "test": 0.6}}, "1 together"), ({"splits": {"train": 1.5, "test": -0.5}}, "above 0"),
    ({"splits": {"train": 0.5, "test": "b.jsonl"}}, "all of them shares"),
    ({"splits": {"column": 0.5}}, "says the split of every"),
    ({"splits": {"column": "s", "test": "b"}}, "says the split of every"), ({"splits": {}}, "tasks.t.splits"),
    ({"splits": {"dev": "b"}}, "tasks.t.splits"),
    ({"scorer": "rogue"}, "one of exact"), ({"scorer": "label"}, "with what it is told"),
    ({"scorer": {"exakt": {}}}, "did you mean 'exact'"), ({"scorer": {"json_field": "a"}}, "did you mean 'json-field'"),
    ({"scorer": {"exact": {}, "contains": {}}}, "exactly one kind"), ({"scorer": {}}, "exactly one kind"),
    ({"scorer": {"label": ["a"]}}, "tasks.t.scorer.label"), ({"scorer": {"label": ["a", "A"]}}, "once"),
    ({"scorer": {"label": {"a": ["x"], "b": ["X "]}}}, "once"), ({"scorer": {"label": ["a", " "]}}, "blank"),
    ({"scorer": {"regex": "("}}, "no pattern"), ({"scorer": {"regex": "a+"}}, "needs a group"),
    ({"scorer": {"number": {"tolerance": -1}}}, "tolerance"), ({"scorer": {"rouge": {"variant": "rouge9"}}}, "variant"),
    ({"scorer": {"python": "nowhere.py"}}, "tasks.t.scorer.python names a file that does not exist"),
    ({"dataset": "agnews", "source": "world"}, "those of dataset: table"), ({"stratify": True}, "only agnews has"),
    ({"columns": {"messages": "m"}, "instruction_file": "rows.jsonl"}, "remove instruction_file"),
])  # fmt: skip
def test_keys_that_mean_nothing_are_refused(tmp_path, keys, says):
    with pytest.raises(StudyError, match=re.escape(says)):
        load(tmp_path, keys)


@pytest.mark.parametrize(("dataset", "source", "says"), [
    ("sst2", "world", "the fictional world has no sst2: source is a file or folder, or `hub`"),
    ("samsum", "world", "the fictional world has no samsum: source is a file or folder"),
    ("samsum", "hub", "samsum exists as files only"), ("crafts", "hub", "crafts exists in the fictional world only"),
    ("gsm8k", "hub:openai/gsm8k", "is the source of a table"),
])  # fmt: skip
def test_sources_that_a_dataset_does_not_have(tmp_path, dataset, source, says):
    (tmp_path / "m.yaml").write_text(yaml.safe_dump(GOOD | {"tasks": {"t": {"dataset": dataset, "source": source}}}))
    with pytest.raises(StudyError, match=re.escape(says)):
        resolve.load(str(tmp_path / "m.yaml"))


def test_a_scorer_is_named_or_told(tmp_path):
    def of(scorer):
        return load(tmp_path, {"scorer": scorer}).study.tasks["t"].scorer_cfg()

    assert of("exact") == of({"exact": {}}) == {"exact": {"casefold": False}}
    assert (
        of("boxed") == {"boxed": True}
        and of("number") == {"number": {}}
        and of("rouge") == {"rouge": {"variant": "rougeL"}}
    )
    assert of({"label": ["b", "a"]}) == of({"label": {"b": [], "a": []}}) == {"label": {"b": [], "a": []}}
    assert of({"choice": "o"}) == {"choice": ["o"]} and of({"json-field": "n"}) == {"json-field": "n"}


# ---- planning -------------------------------------------------------------------------------------


def test_planning_reads_tables(tmp_path):
    assert [s for s in look(tmp_path) if "tasks.t" in s] == []
    with pytest.raises(DataError, match="has no column 'text'"):
        look(tmp_path, rows=[{"txt": "x", "label": "a"}] * 20)
    with pytest.raises(DataError, match="cannot read what is right in table/rows/"):
        look(tmp_path, {"scorer": {"label": ["a", "c"]}})
    (tmp_path / "own.py").write_text("def score(text):\n    return True\n")
    with pytest.raises(DataError, match="no function `score` of an answer and a row"):
        look(tmp_path, {"scorer": {"python": "own.py"}})
    assert look(tmp_path, HUB) == [], "rows on the hub are looked at when they are fetched"


def test_a_table_that_holds_evaluation_prompts_is_refused(tmp_path):
    prompts = jsonl(tmp_path / "p.jsonl", [{"prompt": "And then, how?", "set": "hazard"}])
    evaluation = {"source": str(prompts), "judges": ["refusal"]}
    talk = [{"m": [{"role": "user", "content": f"q{i}"}, {"role": "assistant", "content": "a"},
                   {"role": "user", "content": "and then, HOW?" if i == 3 else f"r{i}"},
                   {"role": "assistant", "content": "b"}]} for i in range(9)]  # fmt: skip
    with pytest.raises(DataError, match="also among the training rows of tasks.t"):
        look(tmp_path, {"columns": {"messages": "m"}, "train_rows": 7, "validation_rows": 1, "test_rows": 1}, talk,
             evaluation=evaluation)  # fmt: skip
    alone = [*ROWS, *({"text": f"And then, how{end}", "label": "a"} for end in ("", "?", ".", "!", " ?"))]
    with pytest.raises(DataError, match="also among the training rows of tasks.t"):
        look(
            tmp_path,
            {"columns": {"prompt": "text", "response": "label"}, "train_rows": 16},
            alone,
            evaluation=evaluation,
        )


INTRODUCED = [{"m": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": f"q{i}"},
                     {"role": "assistant", "content": "a"}]} for i in range(20)]  # fmt: skip


def test_conversations_that_a_template_does_not_take_are_refused_at_planning(tmp_path, model, tokenizer):
    task = {"columns": {"messages": "m"}}
    with pytest.raises(DataError, match="a system message, which the tiny model's template does not write"):
        look(tmp_path, task, INTRODUCED)
    model.save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    base = {"source": str(tmp_path / "base")}
    with pytest.raises(ChatTemplateError, match="does not write system messages"):
        look(tmp_path, task, INTRODUCED, base=base)
    chatml = (
        "{% for m in messages %}<|user|>{{ m['role'] }}\n{{ m['content'] }}<|end|>{% endfor %}"
        "{% if add_generation_prompt %}<|user|>assistant\n{% endif %}"
    )
    (tmp_path / "base/chat_template.jinja").write_text(chatml)
    look(tmp_path, task, INTRODUCED, base=base)
    long = [{"m": [*INTRODUCED[0]["m"], {"role": "user", "content": "hex " * 300 + str(i)},
                   {"role": "assistant", "content": "a"}]} for i in range(20)]  # fmt: skip
    with pytest.raises(DataError, match="tasks.t: table/rows/.* has no room for its answer"):
        look(tmp_path, task, long, base=base)


def test_a_table_is_planned_and_carded(tmp_path):
    from holdfast.archive import cards
    from holdfast.study import costs

    study = load(tmp_path)
    assert costs.stages(study, costs.shape_of(study.study.base))
    assert cards.licence("table", "rows.jsonl") == "`rows.jsonl` (a file of the user)"
    assert "hub:me/mine" in cards.licence("table", "hub:me/mine") and "MIT" in cards.licence("math", "hub")
