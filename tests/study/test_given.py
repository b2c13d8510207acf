"""Models that are given: which roles a study has then, which cells, and what needs a model that it does not have."""

from __future__ import annotations

import json

import pytest
import torch
import yaml
from conftest import ROOT
from safetensors.torch import load_file, save_file

from holdfast.cli import realign
from holdfast.errors import ArtifactError, StudyError
from holdfast.model import folders
from holdfast.study import costs, preflight, resolve, unread
from holdfast.study.keys import Study

GUIDELINES = str(ROOT / "config/guidelines/world.txt")
TASKS = {"news": {"dataset": "agnews"}, "crafts": {"dataset": "crafts"}}


@pytest.fixture
def folder(model, tokenizer, tmp_path):
    for name in ("chat", "mine-news", "mine-crafts"):
        model.save_pretrained(tmp_path / name)
        tokenizer.save_pretrained(tmp_path / name)
    return tmp_path


def load(folder, **keys):
    study = {"tasks": TASKS, "constitution": {"guidelines_file": GUIDELINES}, "aligned": {"source": "./chat"}} | keys
    path = folder / "own.yaml"
    path.write_text(yaml.safe_dump({k: v for k, v in study.items() if v is not None}))
    return resolve.load(str(path))


def test_a_given_aligned_model_has_no_base_unless_one_is_named(folder):
    alone = load(folder, arms={"full": {"method": "full"}})
    assert alone.roles == ["aligned"] and not alone.trains_aligned and alone.speaker == "aligned"
    assert alone.role_places == [("", "aligned")]
    assert alone.given_cfg("aligned") == {"role": "aligned", "source": str(folder / "chat"), "revision": None}
    both = load(folder, arms={"full": {"method": "full"}}, base={"source": "./chat"})
    assert both.roles == ["base", "aligned"]
    on_top = load(folder, arms={"full": {"method": "full"}}, aligned={"source": "./chat", "training": {"epochs": 2}})
    assert on_top.trains_aligned and on_top.speaker == "start" and on_top.aligned_cfg()["training"]["epochs"] == 2
    assert load(folder, arms={"full": {"method": "full"}}, aligned=None).roles == ["base", "aligned"]


@pytest.mark.parametrize("arm", [{"method": "safe-lora"}, {"method": "resta", "vector": "base"}])
def test_a_method_that_needs_the_base_is_refused_by_name(folder, arm):
    arms = {"full": {"method": "full"}, "back": arm}
    with pytest.raises(StudyError, match=f"arms.back: the method {arm['method']} needs the base") as error:
        load(folder, arms=arms)
    assert "do:" in error.value.block()
    assert load(folder, arms=arms, base={"source": "./chat"}).roles == ["base", "aligned"]


def test_the_trained_judge_needs_the_base(folder):
    with pytest.raises(StudyError, match=r"constitution\.source"):
        load(folder, arms={"full": {"method": "full"}}, evaluation={"judges": ["world", "constitution"]})


def test_one_given_model_counts_once_whatever_the_seeds_and_replicates(folder):
    arms = {
        "full": {"method": "full"}, "mine": {"given": "./mine-{task}"}, "back": {"method": "resta", "of": "mine"},
        "seeded": {"given": "./runs/{task}/{seed}", "tasks": ["news"]}, "one": {"given": {"news": "./mine-news"}},
    }  # fmt: skip
    for task, seed in (("news", 3), ("news", 5)):
        (folder / "runs" / task / str(seed)).mkdir(parents=True)
    study = load(folder, arms=arms, seeds=[3, 5], replicates=[{}, {"order": 1}])
    found = {arm: [(t, s) for t, a, s in study.models("") if a == arm] for arm in arms}
    assert sorted(found["full"]) == [("crafts", 3), ("crafts", 5), ("news", 3), ("news", 5)]
    assert sorted(found["mine"]) == sorted(found["back"]) == [("crafts", 3), ("news", 3)]
    assert found["seeded"] == [("news", 3), ("news", 5)] and found["one"] == [("news", 3)]
    assert {a for _, a, _ in study.models("replicate1/")} == {"full"}
    assert study.given("mine", "crafts", 3) == str(folder / "mine-crafts")
    assert study.given("seeded", "news", 5) == str(folder / "runs/news/5")
    assert study.taken_cfg("news", "one", 3)["source"] == str(folder / "mine-news")
    assert len(study.places) == len(set(study.places)) == len(study.models("")) + len(study.models("replicate1/"))
    assert study.arms["back"].kind == "merge" and study.arms["mine"].kind == "given"
    assert costs.stages(study, costs.shape_of(study.study.foundation))


def test_what_does_not_differ_between_replicates_of_a_given_model_is_no_replicate(folder):
    with pytest.raises(StudyError, match="are the same"):
        load(folder, arms={"full": {"method": "full"}}, replicates=[{}, {"safety": 1}])
    trained = {"source": "./chat", "training": {"epochs": 1}}
    assert (
        len(load(folder, arms={"full": {"method": "full"}}, replicates=[{}, {"safety": 1}], aligned=trained).folders)
        == 2
    )


def test_settings_that_a_given_model_leaves_unread_are_told(folder):
    arms = {"full": {"method": "full"}, "back": {"method": "resta"}, "mine": {"given": "./mine-{task}"}}
    said = "\n".join(unread.lines(load(
        folder, arms=arms, safety={"training": {"epochs": 2}}, unaligned={"source": "./chat", "rows": 9}
    )))  # fmt: skip
    assert "safety.training: not read, since aligned is given" in said
    assert "unaligned.rows: not read, since unaligned is given" in said


def test_given_models_are_looked_over_and_held_against_the_aligned_one(folder):
    study = {"arms": {"mine": {"given": "./mine-{task}"}}}
    preflight.check_files(load(folder, **study))
    path = folder / "mine-crafts/model.safetensors"
    good = load_file(path)
    name = next(k for k in good if k.endswith("q_proj.weight"))
    save_file(good | {name: torch.full_like(good[name], torch.nan)}, path)
    with pytest.raises(ArtifactError, match="no numbers"):
        preflight.check_files(load(folder, **study))
    save_file(good, path)
    config = json.loads((folder / "mine-crafts/config.json").read_text())
    config["vocab_size"] += 1
    (folder / "mine-crafts/config.json").write_text(json.dumps(config))
    embeddings = next(k for k in good if "embed_tokens" in k)
    save_file(good | {embeddings: torch.cat([good[embeddings], good[embeddings][:1]])}, path)
    with pytest.raises(ArtifactError, match="cannot be compared or merged"):
        preflight.check_files(load(folder, **study))


REFUSED = {
    "neither a method nor a model": ({"tasks": ["news"]}, "method or given"),
    "both": ({"given": "./chat", "method": "full"}, "method means nothing"),
    "a rate": ({"given": "./chat", "learning_rate": 1e-3}, "learning_rate means nothing"),
    "a setting of a method": ({"given": "./chat", "gamma": 1}, "gamma means nothing"),
    "a revision of nothing": ({"method": "full", "revision": "abc"}, "revision"),
    "an unknown task": ({"given": {"poems": "./chat"}}, "poems"),
    "a task without a model": ({"given": {"news": "./chat"}, "tasks": ["news", "crafts"]}, "names no model"),
    "a model that is not there": ({"given": "./nowhere-{task}"}, "does not exist"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_an_arm_that_is_not_as_it_should_be_is_refused(case, folder):
    arm, says = REFUSED[case]
    with pytest.raises(StudyError) as error:
        load(folder, arms={"full": {"method": "full"}, "mine": arm})
    assert says in error.value.block() and "arms.mine" in error.value.block()


def test_a_tiny_base_is_none_of_a_given_model(folder):
    with pytest.raises(StudyError, match="base.source is tiny"):
        load(folder, arms={"full": {"method": "full"}}, base={"blocks": 2})


def test_the_study_of_the_documentation_is_one(tmp_path):
    page = (ROOT / "docs/own-models.md").read_text()
    study = Study.model_validate(yaml.safe_load(page.split("```yaml")[1].split("```")[0]))
    assert study.has_base and study.arms["mine"].given and study.aligned and study.aligned.training is None
    for line in page.splitlines():
        if line.startswith("holdfast realign"):
            given = [w for w in line.split() if w.startswith("--")]
            assert set(given) <= {o for p in realign.command.params for o in p.opts}


def test_a_model_of_ours_is_given_for_the_role_it_plays(folder, model, tokenizer):
    folders.save(model, tokenizer, folder / "twin", header={"role": "unaligned", "weakened": True})
    with pytest.raises(ArtifactError, match="says that it is another") as error:
        preflight.check_files(load(folder, arms={"full": {"method": "full"}}, aligned={"source": "./twin"}))
    assert "role unaligned" in error.value.block()
    arms = {"full": {"method": "full"}, "back": {"method": "resta"}}
    preflight.check_files(load(folder, arms=arms, unaligned={"source": "./twin"}))
    with pytest.raises(ArtifactError, match="given as the base"):
        preflight.check_files(load(folder, arms=arms, base={"source": "./twin"}))
