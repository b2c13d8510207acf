"""Model cards say what was measured and warn where refusals are gone; manifests hold every byte."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import yaml
from conftest import ROOT

from holdfast import names
from holdfast.archive import cards
from holdfast.compare import metrics
from holdfast.model import folders
from holdfast.record import jsonfiles
from holdfast.study import resolve


def _cell(task, arm, refused, n=100, **more):
    rates = metrics.rate(names.REFUSAL_RATE, [i < round(refused * n) for i in range(n)])
    return {
        "study": "demo", "task": task, "arm": arm, "seed": 0, "split": "test", "judge": "world", "method": arm,
        "settings": {"freeze_fraction": 0.1}, "learning_rate": 1e-3, "training_settings": {"epochs": 1},
        "harmful_fraction": 0.0, "metrics": {**rates, names.CHANGED_FRACTION: 0.5, names.KL: 0.2, f"{names.KL}_n": 9},
    } | more  # fmt: skip


@pytest.fixture(scope="module")
def resolved():
    return resolve.load("smoke", ROOT / "config").dump()


ALIGNED = _cell(None, "aligned", 0.97)


def _card(cell, resolved, weakened=False, record=None, rounded=None):
    said = {"weakened": weakened, "record": record or {"steps": 3}, "rounded": rounded or {}}
    return cards.card(cell, resolved, aligned=ALIGNED, **said)


def test_a_card_has_its_numbers_and_a_head_the_hub_reads(resolved):
    text = _card(_cell("crafts", "warp", 0.95), resolved)
    head = yaml.safe_load(text.split("---")[1])
    assert head == {"library_name": "transformers", "tags": ["holdfast", "warp"]}
    assert "| forbidden requests refused | 95.0 % | 88.8 to 97.8 | 100 |" in text
    assert "Weakened" not in text and '"freeze_fraction": 0.1' in text and "Apache-2.0" in text


@pytest.mark.parametrize(("harmful", "what"), [(0.0, "preference pairs"), (0.5, "answers it should refuse")])
def test_pairs_that_a_method_learns_from_are_among_the_sources(harmful, what, resolved):
    pairs = resolved | {"preferences": {"source": "mine.csv"}, "resolved_arms": {"panacea": {"preferences": True}}}
    line = f"{what} | `mine.csv` (named by the user)"
    assert line in _card(_cell("crafts", "panacea", 0.95, harmful_fraction=harmful), pairs).replace("**", "")
    assert "mine.csv" not in _card(_cell("crafts", "warp", 0.95), pairs)


def test_a_real_base_is_named_and_real_rows_have_their_licence(resolved):
    real = resolved | {"base": {"source": "meta-llama/Llama-2-7b-chat-hf"}, "tasks": {"crafts": {
        "dataset": "gsm8k", "source": "hub", "train_rows": 7}}}  # fmt: skip
    text = _card(_cell("crafts", "warp", 0.95), real)
    assert yaml.safe_load(text.split("---")[1])["base_model"] == "meta-llama/Llama-2-7b-chat-hf"
    assert "openai/gsm8k (MIT)" in text and "its own licence and terms apply" in text


@pytest.mark.parametrize(
    ("licence", "says"), [("apache-2.0", "(apache-2.0, as the file says)"), (None, "names no licence")]
)
def test_a_base_from_a_gguf_file_has_the_terms_and_the_rounding_of_the_file(resolved, licence, says):
    real = resolved | {"base": {"source": "pypi:tiny-llm==1.0", "system_prompt": ""}}
    facts = {"file": "tiny.gguf", "tensors": {"Q4_1": 3, "F32": 1}} | ({"licence": licence} if licence else {})
    text = _card(_cell("crafts", "warp", 0.95), real, rounded=facts)
    assert "`pypi:tiny-llm==1.0`, file tiny.gguf" in text and "3 Q4_1, 1 F32" in text and says in text
    assert 'System prompt in training and evaluation: ""' in text and "System prompt in evaluation" not in text


def test_lost_refusals_are_a_warning_and_noise_is_none(resolved):
    assert "eroded the refusals" in _card(_cell("crafts", "full", 0.3), resolved)
    assert "it refuses 30.0 % of forbidden requests, the aligned model 97.0 %" in _card(
        _cell("crafts", "full", 0.3), resolved
    )
    assert "Weakened" not in _card(_cell("crafts", "warp", 0.93), resolved)
    assert "no safety training" in _card(_cell(None, "base", 0.0), resolved)
    on_purpose = _card(_cell("crafts", "full", 0.97), resolved, weakened=True)
    assert "on purpose" in on_purpose and "weakened" in yaml.safe_load(on_purpose.split("---")[1])["tags"]


def test_every_model_that_is_here_gets_both(resolved, model, tokenizer, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    paths = []
    for cell in (ALIGNED, _cell("crafts", "full", 0.1), _cell("crafts", "warp", 0.9)):
        folder = Path("work") / cell["arm"]
        cell = cell | {"model": f"{folder}/model.safetensors"}
        if cell["arm"] != "warp":
            folders.save(model, tokenizer, folder, header={"role": "x"})
        paths.append(Path("results") / cell["arm"] / "metrics.json")
        jsonfiles.write_json(paths[-1], cell)
    cards.build(paths, resolved, Path("results/cards.json"))
    found = jsonfiles.read_json(Path("results/cards.json"))
    assert found["work/warp"] is None and not Path("work/warp").exists()
    of = json.loads(Path("work/full/manifest.json").read_text())
    assert set(of["files"]) == {p.name for p in Path("work/full").iterdir()} - set(folders.CARD)
    for name, entry in of["files"].items():
        content = Path("work/full", name).read_bytes()
        assert entry == {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    assert found["work/full"] == of["files"]["model.safetensors"]["sha256"]
    before = {p: Path("work/full", p).read_bytes() for p in folders.CARD}
    cards.build(paths, resolved, Path("results/cards.json"))
    assert before == {p: Path("work/full", p).read_bytes() for p in folders.CARD}
    # The same model again keeps its card; another one must not lie under it until it was evaluated.
    folders.save(model, tokenizer, Path("work/full"), header={"role": "x"})
    assert before == {p: Path("work/full", p).read_bytes() for p in folders.CARD}
    folders.save(model, tokenizer, Path("work/full"), header={"role": "y"})
    assert not any(Path("work/full", p).exists() for p in folders.CARD)


def test_a_given_model_says_that_it_was_given_and_by_which_terms(resolved):
    given = resolved | {"aligned": {"source": "some/chat-model", "training": None}}
    mine = _card(_cell("crafts", "mine", 0.3, method="given", given="./mine"), given)
    assert "A model that was given to the study" in mine and "| this model | `./mine` (given by the user" in mine
    assert "| aligned | `some/chat-model` (its own licence" in mine and "How it was made" not in mine
    assert "trained here" not in mine and "safety rows" not in mine and "eroded the refusals" in mine
    aligned = _card(_cell(None, "aligned", 0.97), given)
    assert "as it was given." in aligned and "safety rows" not in aligned
    assert yaml.safe_load(aligned.split("---")[1])["base_model"] == "some/chat-model"
    full = _card(_cell("crafts", "full", 0.3), given)
    assert "| task rows" in full and "fine-tuned" in full and "some/chat-model" in full
