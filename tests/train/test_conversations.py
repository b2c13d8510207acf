"""A table of conversations on its whole way: rows, training, answers, verdicts."""

from __future__ import annotations

import json

import yaml
from bad_input import GOOD

from holdfast.compare import metrics
from holdfast.data import prepare
from holdfast.evaluate import answers
from holdfast.judges import verdicts
from holdfast.model import chat, folders
from holdfast.record import tables
from holdfast.study import resolve
from holdfast.train import finetune

TASK = {
    "dataset": "table", "source": "talk.jsonl", "columns": {"messages": "turns"},
    "scorer": {"contains": {"casefold": True}}, "train_rows": 8, "validation_rows": 2, "test_rows": 3,
    "max_new_tokens": 6, "training": {"batch_size": 4},
}  # fmt: skip


def talk(i):
    return [{"role": "user", "content": f"do you like tea {i}?"}, {"role": "assistant", "content": "With pleasure!"},
            {"role": "user", "content": "and coffee?"}, {"role": "assistant", "content": f"No, tea {i}."}]  # fmt: skip


def test_conversations_are_learned_asked_and_scored(tmp_path, model, tokenizer, world):
    rows = [{"turns": talk(i)} for i in range(30)] + [{"turns": talk(99)[:2]}]
    (tmp_path / "talk.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    keys = {"tasks": {"t": TASK}, "arms": {"full": {"method": "full", "learning_rate": 0.01}}, "world": {"seed": 3}}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(GOOD | keys))
    study = resolve.load(str(tmp_path / "mine.yaml"))
    table, prompts = tmp_path / "t.parquet", tmp_path / "prompts.parquet"
    tables.write(prepare.task_rows(study.task_data_cfg("t"), tmp_path / "talk.jsonl"), table, "table")
    tables.write(world.prompts("test", 2), prompts, "prompts")
    folders.save(model, tokenizer, tmp_path / "aligned", header={"role": "aligned"})
    record = finetune.run(
        aligned=tmp_path / "aligned/model.safetensors", task_table=table, safety_table=None, artifacts={},
        cfg=study.cell_cfg("t", "full", 0), folder=tmp_path / "cell", log_file=tmp_path / "train.jsonl",
        record_file=tmp_path / "train.json", checkpoints=tmp_path / "checkpoints",
    )  # fmt: skip
    learned = [tokenizer(r["turns"][-1]["content"], add_special_tokens=False)["input_ids"] for r in rows]
    assert record["rows"] == 8 and record["weights/changed_fraction"] > 0.5
    least, most = (8 * (f(map(len, learned)) + 1) for f in (min, max))
    assert least <= record["supervised_tokens"] <= most, "the last answers and their ends, and nothing before"
    answers.respond(
        tmp_path / "cell/model.safetensors", prompts=prompts, tasks={"t": table}, cfg=study.generation_cfg(["t"]),
        out=tmp_path / "r.parquet",
    )  # fmt: skip
    asked = {r["id"]: r for r in tables.read(table, "table") if r["split"] == "test"}
    said = {r["id"]: r for r in tables.read(tmp_path / "r.parquet", "responses") if r["set"] == "task:t"}
    assert said.keys() == asked.keys() and len(said) == 3
    trained, its = folders.load(tmp_path / "cell")
    for name, r in said.items():
        turns = json.loads(asked[name]["turns"])
        assert r["prompt"] == asked[name]["prompt"] and r["prompt"].endswith(
            "assistant: With pleasure!\nuser: and coffee?"
        )
        (again,) = answers.answer(trained, its, [turns], max_new_tokens=6, batch_size=1)
        assert again.text == r["text"]
        assert chat.encode_prompt(its, turns) != chat.encode_prompt(its, r["prompt"])
    cfg = study.judge_cfg("t", "full", 0, "m")
    found = verdicts.judge(
        tmp_path / "r.parquet", prompts=prompts, tasks={"t": table}, datasets=cfg["datasets"],
        told=cfg["cell"]["scorers"], judges=cfg["judges"], opinions={}, out=tmp_path / "v.parquet",
    )  # fmt: skip
    scored = {r["id"]: r["outcome"] for r in found if r["set"] == "task:t"}
    golds = {name: r["response"].lower() for name, r in asked.items()}
    assert scored == {
        name: "correct" if golds[name] in r["text"].lower() else "wrong" if r["text"] else "invalid"
        for name, r in said.items()
    }
    measured = metrics.compute(found, cfg["datasets"], by_task=False, told=cfg["cell"]["scorers"])["metrics"]
    assert measured["utility/exact_match_n"] == 3
