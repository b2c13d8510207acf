"""The DAG: what a change reruns, what a mistake prints, and the smoke study from nothing to a report."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import soak
import yaml
from conftest import ROOT
from herbs import harness, task_files
from workflow import call, edit, finished, planned, snakemake

from holdfast.archive import audit
from holdfast.record import container, csvfiles, tables

pytestmark = pytest.mark.dag


def test_every_contract_path_is_there(project):
    results, work = project / "results/smoke", project / "work/smoke"
    for name in ("table.csv", "claims.csv", "cost.csv", "report.html", "frontier.png", "mlflow.json"):
        assert (results / name).stat().st_size > 0, name
    cell = results / "crafts/warp/seed0"
    for name in ("metrics.json", "responses.parquet", "verdicts.parquet", "train.jsonl", "train.json"):
        assert (cell / name).stat().st_size > 0, name
    for role in ("base", "aligned", "crafts/warp/seed0"):
        for name in ("model.safetensors", "config.json", "tokenizer.json", "chat_template.jinja"):
            assert (work / role / name).stat().st_size > 0, (role, name)
    assert (work / "basis/safety.safetensors").exists() and list((work / "masks").glob("*.safetensors"))
    assert not (work / "checkpoints/crafts").exists() or not list((work / "checkpoints/crafts").rglob("checkpoint-*"))


def test_metrics_carry_counts_and_intervals(project):
    m = json.loads((project / "results/smoke/crafts/warp/seed0/metrics.json").read_text())
    for name in ("safety/refusal_rate", "safety/over_refusal", "utility/exact_match", "safety/asr"):
        assert {name, f"{name}_low", f"{name}_high", f"{name}_n"} <= m["metrics"].keys()
    assert m["metrics"]["weights/changed_fraction"] > 0
    assert m["training"]["frozen_fraction"] == pytest.approx(0.1, abs=1e-3)
    assert m["training"]["frozen_drift"] < 1e-6 and m["training"]["cut_rows"] == 0
    assert {s: sum(n.values()) for s, n in m["finish"].items()} == {s: sum(n.values()) for s, n in m["counts"].items()}
    roles = json.loads((project / "results/smoke/models/aligned/metrics.json").read_text())["metrics"]
    assert "utility/agnews/accuracy" in roles and "safety/refusal_rate" in roles


def test_the_report_is_one_self_contained_page(project):
    page = (project / "results/smoke/report.html").read_text()
    assert len(page) < 5_000_000 and "<svg" in page
    assert not re.search(r"""(?:src|href)=["']https?://""", page)
    for word in (
        "warp-randmask",
        "Which claims hold",
        "What refusals are paid with",
        "The sweep behind the learning rates",
    ):
        assert word in page
    # Every row of numbers leads to its cell, and every cell is there.
    targets = re.findall(r'href="#([^"]+)"', page)
    assert set(targets) <= set(re.findall(r'\bid="([^"]+)"', page))
    for section in ("frontier", "table", "claims", "inside"):
        part = re.search(rf'<section id="{section}">.*?</section>', page, re.S)[0]
        rows = re.findall(r"<tr>(?:(?!</tr>).)*<td.*?</tr>", part, re.S)
        assert rows and [r for r in rows if 'href="#cell-' not in r and "(front)" not in r] == [], section


def test_nothing_to_do_after_a_run(project):
    assert planned(project) == {}
    assert planned(project, "models") == {}


def test_mlflow_has_one_finished_run_per_cell(project):
    from mlflow import MlflowClient

    record = json.loads((project / "results/smoke/mlflow.json").read_text())
    assert record["uri"].startswith("sqlite:////")
    client = MlflowClient(tracking_uri=record["uri"])
    experiment = client.get_experiment_by_name("smoke")
    runs = client.search_runs([experiment.experiment_id])
    assert len(runs) == len(record["runs"]) == 2 + 7 + 1
    assert {r.info.status for r in runs} == {"FINISHED"}
    warp = next(r for r in runs if r.data.tags.get("cell") == "smoke/crafts/warp/seed0")
    assert warp.data.params["method"] == "warp" and "safety/refusal_rate" in warp.data.metrics
    names = {a.path for a in client.list_artifacts(warp.info.run_id)}
    assert {"metrics.json", "train.jsonl", "study.json", "checkpoint.json"} <= names


def test_family_targets_can_be_asked_for_alone(project):
    prepared = ("prepare", "base", "aligned", "gram", "basis", "importance", "masks")
    targets = (*prepared, "models", "responses", "metrics", "table", "report", "mlflow")
    assert planned(project, *targets) == {}
    one = planned(project, "masks", flags=("--forcerun", "build_mask"))
    assert one == {"build_mask": 2, "masks": 1}


@pytest.fixture(scope="module")
def methods(tmp_path_factory) -> Path:
    """The project with every other method run, up to the report."""
    report = "results/smoke-methods/report.html"
    return finished(tmp_path_factory.mktemp("methods"), report, study="smoke-methods")


def test_every_method_runs_in_the_dag(methods):
    from holdfast.study import registry, resolve

    rows = list(csv.DictReader((methods / "results/smoke-methods/table.csv").open()))
    smoke = {a.method for a in resolve.load("smoke", ROOT / "config").arms.values()}
    here = {r["method"] for r in rows if r["method"] not in ("base", "aligned", "unaligned")}
    assert set(registry.method_names()) - {"sn-tune"} == smoke | here  # sn-tune is rsn-tune without one step
    assert {r["arm"] for r in rows if r["task"] == "agnews"} == {"base", "aligned", "unaligned", "full", "somf"}
    assert "How cheaply is safety lost" in (methods / "results/smoke-methods/report.html").read_text()


def test_every_stress_is_beside_the_model_as_it_was(methods):
    rows = list(csv.DictReader((methods / "results/smoke-methods/stress.csv").open()))
    found = {(r["arm"], r["stress"]) for r in rows if r["task"] == "risky"}
    kinds = {"lead": {"hot", "opened", "bits-4", "half-base"}, "resta": {"pruned"}, "aligned": {"half-base"}}
    assert found == {(arm, name) for arm, of in kinds.items() for name in {*of, "as it was"}}
    assert all((r["refusal_change"] == "") == (r["stress"] == "as it was") and r["refusal_n"] == "12" for r in rows)
    from holdfast.record import tables

    cell = methods / "results/smoke-methods/risky/lead/seed0"
    opened = tables.read(cell / "stress/opened/responses.parquet", "responses")
    begun = {kind: [r["text"].startswith("Of course. First") for r in opened if r["set"].startswith("task:") == kind]
             for kind in (True, False)}  # fmt: skip
    assert begun[False] and all(begun[False]) and begun[True] and not any(begun[True])
    assert "Defences against attacks" in (methods / "results/smoke-methods/report.html").read_text()


def test_a_signed_permutation_of_the_outputs_is_warp(methods):
    """The sanity arm freezes the same coefficients; `warp-two-mask` and `warp-output` do not."""
    work = methods / "work/smoke-methods/masks"
    from holdfast.record import artifact

    headers = {p.stem: artifact.header(p, family="mask") for p in work.glob("*.safetensors")}
    assert headers["permuted-importance-entry-0.1"]["frozen_fraction"] == pytest.approx(0.1, abs=1e-3)
    assert headers["safety-importance-entry-0.1-minus-risky"]["frozen_fraction"] < 0.1


def test_weakened_models_say_so(methods):
    for name in ("unaligned", "risky/full/seed0"):
        assert "weakened" in (methods / "work/smoke-methods" / name / "README.md").read_text()
    assert not (methods / "work/smoke-methods/agnews/full/seed0/README.md").exists()
    # A fusion across tasks holds what a weakened model learned.
    assert (methods / "work/smoke-methods/agnews/somf/seed0/README.md").exists()


def test_weakened_models_leave_only_when_they_are_named(methods, tmp_path):
    folder, store = tmp_path / "p", tmp_path / "store"
    shutil.copytree(methods, folder, symlinks=True)
    call(folder, "dvc", "init", "--no-scm", "--quiet")
    call(folder, "dvc", "remote", "add", "--default", "store", str(store))
    said = call(folder, "holdfast", "push", "smoke-methods")
    assert "not pushed: models weakened on purpose" in said and "weakened " not in said.split("\npushed ")[1]
    lock = yaml.safe_load((folder / "dvc/smoke-methods/dvc.lock").read_text())["stages"]
    paths = [out["path"] for stage in lock.values() for out in stage["outs"]]
    assert paths and not any("unaligned" in p or "risky" in p.split("work/")[-1].split("/") for p in paths)
    assert "pushed weakened" in call(folder, "holdfast", "push", "smoke-methods", "weakened")
    call(folder, "holdfast", "push", "smoke-methods", "nothing", code=2)


def test_freeze_fraction_reruns_masks_and_warp_cells_only(copy):
    edit(
        copy / "config/smoke.yaml",
        "warp: {method: warp, freeze_fraction: 0.1}",
        "warp: {method: warp, freeze_fraction: 0.2}",
    )
    jobs = planned(copy)
    assert jobs == {
        "build_mask": 1, "finetune": 2, "respond": 2, "judge": 2, "changes": 2, "compare": 1, "papers": 1,
        "write_report": 1, "cards": 1, "import_runs": 1,
    }  # fmt: skip


def test_why_names_the_setting_that_changed(copy):
    target = "results/smoke/crafts/warp/seed0/metrics.json"
    assert "is up to date" in call(copy, "holdfast", "why", target)
    edit(copy / "config/smoke.yaml", "freeze_fraction: 0.1", "freeze_fraction: 0.3")
    said = call(copy, "holdfast", "why", target)
    assert "would be made again" in said and "because settings.freeze_fraction: 0.1 -> 0.3" in said
    assert "and then finetune -> judge" in said
    assert "build_mask" in said and "is not there" in said  # another fraction is another mask
    call(copy, "holdfast", "why", "results/smoke/nowhere.csv", code=2)


def test_the_workflows_own_report_has_captions(project, tmp_path):
    out = snakemake(project, "--report", str(tmp_path / "r.html"))
    assert out.returncode == 0, out.stderr[-2000:]
    assert "Pairwise claims as sentences" in (tmp_path / "r.html").read_text()


def test_one_arm_reruns_that_arm_only(copy):
    edit(copy / "config/smoke.yaml", "lora: {method: lora,", "lora: {method: lora, rank: 4,")
    out = snakemake(copy, "-n")
    cells = set(re.findall(r"output: work/smoke/(\S+)/seed0/model", out.stdout + out.stderr))
    assert cells == {"crafts/lora"}
    assert planned(copy)["finetune"] == 1


def test_a_replicate_is_added_to_a_finished_study(copy):
    """Another aligned model from the same base: what is there stays, and everything reads the other one's files."""
    data = yaml.safe_load((copy / "config/smoke.yaml").read_text())
    mix = {"method": "safety-mix", "tasks": ["crafts"], "sweep": {"learning_rate": [1e-3, 2e-3]}}
    data |= {"arms": {"full": {"method": "full", "tasks": ["crafts"]}, "mix": mix}, "curves": True}
    data |= {"replicates": [{}, {"safety": 1}, {"instructions": "common"}]}
    (copy / "config/smoke.yaml").write_text(yaml.safe_dump(data))
    work, results, cell = copy / "work/smoke", copy / "results/smoke", "crafts/full/seed0/model.safetensors"
    kept = {p: p.stat().st_mtime_ns for p in (work / "aligned/model.safetensors", work / cell)}
    jobs = planned(copy)
    assert "train_base" not in jobs and (jobs["train_aligned"], jobs["finetune"], jobs["prepare_safety"]) == (1, 8, 1)
    out = snakemake(copy, "--quiet", "rules")
    assert out.returncode == 0, out.stdout[-3000:] + out.stderr[-3000:]
    assert {p: p.stat().st_mtime_ns for p in kept} == kept and planned(copy) == {}
    for place in ("aligned/model.safetensors", cell):
        assert (work / place).read_bytes() != (work / "replicate1" / place).read_bytes(), place
    assert not (work / "replicate1/base").exists()
    common = json.loads((results / "replicate2/crafts/full/seed0/train.json").read_text())["machine"]
    assert common["environment"]["ATEN_CPU_CAPABILITY"] == "default" and not (work / "replicate2/aligned").exists()
    header = json.loads(container.raw_header(work / "replicate1" / cell)[0]["__metadata__"]["holdfast"])
    assert header["aligned"] == container.identity(work / "replicate1/aligned/model.safetensors")
    row = next(r for r in csvfiles.read_csv(results / "table.csv") if r["arm"] == "full")
    assert (row["seeds"], row["replicates"]) == ("1", "2")
    curves = {(r["family"], r["measure"]): r for r in csvfiles.read_csv(results / "curves.csv")}
    assert curves["mix", "within-3"]["points"] == "2" and curves["full", "within-1"]["reached"] == "2/2"
    answered = tables.read(results / "replicate1/crafts/full/seed0/validation/responses.parquet", "responses")
    assert all(r["id"].split("/")[0] == "validation" or "/validation/" in r["id"] for r in answered)
    assert "Refusals at equal utility" in (results / "report.html").read_text()
    runs = json.loads((results / "mlflow.json").read_text())["runs"]
    assert {"smoke/crafts/full", "smoke/replicate1/crafts/full/seed0"} <= runs.keys()
    assert "which differ in safety training" in (results / "report.html").read_text()
    assert "in each of 3 replicates" in call(copy, "holdfast", "plan", "smoke", "--tflops", "1")


def test_a_finished_model_and_an_adapter_are_evaluated_and_merged(copy):
    """A study of models that are there: nothing is trained, and Safe LoRA of an adapter leaves an adapter."""
    model = "work/smoke/crafts"
    (copy / "config/own.yaml").write_text(yaml.safe_dump({
        "aligned": {"source": "work/smoke/aligned"}, "base": {"source": "work/smoke/base"}, "seeds": [0, 1],
        "tasks": {"crafts": {"dataset": "crafts", "test_rows": 8, "max_new_tokens": 8}},
        "arms": {"mine": {"given": f"{model}/full/seed0"}, "adapter": {"given": f"{model}/lora/seed0/adapter"},
                 "back": {"method": "safe-lora", "of": "adapter", "number": 3}},
        "evaluation": {"prompts_per_set": 4, "max_new_tokens": 8},
    }))  # fmt: skip
    jobs = planned(copy, "results/own/table.csv", "results/own/cards.json", study="own")
    assert (jobs["take"], jobs["take_aligned"], jobs["realign"], jobs["respond"]) == (2, 1, 1, 3), jobs
    assert not {"train_aligned", "finetune"} & jobs.keys()
    out = snakemake(copy, "--quiet", "rules", "--", "results/own/table.csv", "results/own/cards.json", study="own")
    assert out.returncode == 0, out.stdout[-3000:] + out.stderr[-3000:]
    rows = {r["arm"]: r for r in csvfiles.read_csv(copy / "results/own/table.csv")}
    assert rows.keys() == {"base", "aligned", "mine", "adapter", "back"} and rows["mine"]["seeds"] == "1"
    before = json.loads((copy / "results/smoke/crafts/full/seed0/metrics.json").read_text())["metrics"]
    record = json.loads((copy / "results/own/crafts/mine/seed0/train.json").read_text())
    assert record["weights/changed_fraction"] == before["weights/changed_fraction"]
    old, new = (
        copy / p / "adapter/adapter_model.safetensors" for p in (f"{model}/lora/seed0", "work/own/crafts/back/seed0")
    )
    assert container.raw_header(old)[0].keys() == container.raw_header(new)[0].keys()
    assert old.read_bytes() != new.read_bytes()
    assert "given to the study" in (copy / "work/own/crafts/mine/seed0/README.md").read_text()
    gate = ("holdfast", "gate", "own", "--arm", "mine")
    call(copy, *gate, code=(1, 3))  # eight answers resolve nothing
    edit(copy / f"{model}/full/seed0/config.json", "{", "{ ")
    assert planned(copy, "results/own/table.csv", study="own")["take"] == 1
    assert "full/seed0/config.json is newer than what was measured with it" in call(copy, *gate, code=2)


def test_editing_a_method_file_reruns_that_method_only(copy):
    edit(
        copy / "src/holdfast/methods/safety_mix.py",
        "return int(n * ratio)",
        "return round(n * ratio)",
    )
    assert planned(copy)["finetune"] == 1


def test_editing_a_comment_reruns_nothing(copy):
    time.sleep(1.1)
    edited = ("src/holdfast/methods/warp.py", "src/holdfast/train/loop.py", "scripts/finetune.py", "scripts/base.py")
    for path in edited:
        text = (copy / path).read_text()
        (copy / path).write_text(text + "\n# a remark\n")
    (copy / "config/smoke.yaml").write_text("# a remark\n" + (copy / "config/smoke.yaml").read_text())
    assert planned(copy) == {}


def test_editing_the_judge_reruns_no_model(copy):
    edit(copy / "src/holdfast/judges/world.py", "MINIMUM_PHRASES = 2", "MINIMUM_PHRASES = 3")
    jobs = planned(copy)
    assert "finetune" not in jobs and "respond" not in jobs and jobs["judge"] == 7 and jobs["judge_role"] == 2


def test_another_judge_reads_the_stored_answers(copy):
    """`snakemake verdicts` after a change of judges: no model is trained or asked again."""
    edit(copy / "config/smoke.yaml", "judges: [world]", "judges: [world, refusal, advbench]")
    assert set(planned(copy, "verdicts")) <= {"verdicts", "judge", "judge_role"}
    folder = copy / "results/smoke/agnews/warp/seed0"
    responses, metrics = (folder / n for n in ("responses.parquet", "metrics.json"))
    before = responses.stat().st_mtime_ns, json.loads(metrics.read_text())["metrics"]
    out = snakemake(copy, "--quiet", "rules", "--", "verdicts")
    assert out.returncode == 0, out.stdout[-3000:] + out.stderr[-3000:]
    rows = tables.read(folder / "verdicts.parquet", "verdicts")
    assert {r["judge"] for r in rows} == {"world", "refusal", "advbench", "agnews"}
    assert before == (responses.stat().st_mtime_ns, json.loads(metrics.read_text())["metrics"])
    assert {"agreement", "write_report"} <= set(planned(copy))


@harness
def test_finished_models_are_asked_what_else_they_can_do(copy):
    """A finished study that adds tasks of the harness: nothing is trained or answered again."""
    own = task_files(copy / "own")
    data = yaml.safe_load((copy / "config/smoke.yaml").read_text())
    data["arms"] = {"warp": data["arms"]["warp"] | {"tasks": ["crafts"]}}
    data["capabilities"] = {"tasks": ["lore"], "task_files": str(own)}
    (copy / "config/smoke.yaml").write_text(yaml.safe_dump(data))
    jobs = planned(copy)
    assert (jobs["measure_capabilities"], jobs["measure_capabilities_role"]) == (1, 2)
    assert not {"finetune", "respond", "respond_role", "train_base"} & set(jobs)
    out = snakemake(copy, "--quiet", "rules")
    assert out.returncode == 0, out.stdout[-3000:] + out.stderr[-3000:]
    rows = {r["arm"]: r for r in csvfiles.read_csv(copy / "results/smoke/capabilities.csv")}
    assert list(rows) == ["base", "aligned", "warp"] and {r["n"] for r in rows.values()} == {"24"}
    assert float(rows["warp"]["minus_aligned_low"]) <= float(rows["warp"]["minus_aligned"])
    page = (copy / "results/smoke/report.html").read_text()
    assert "What the models can do elsewhere" in page and "lore" in page
    store = json.loads((copy / "results/smoke/mlflow.json").read_text())
    from mlflow import MlflowClient

    run = MlflowClient(tracking_uri=store["uri"]).get_run(store["runs"]["smoke/crafts/warp/seed0"])
    assert run.data.metrics["capability/lore"] == pytest.approx(float(rows["warp"]["rate"]), abs=1e-6)
    assert planned(copy) == {}


def test_a_pushed_study_is_pulled_elsewhere_and_knows_what_made_it(copy, tmp_path):
    """Machine A pushes, machine B pulls: nothing to do there, and a change reruns what depends on it only."""
    call(copy, "dvc", "init", "--no-scm", "--quiet")
    call(copy, "dvc", "remote", "add", "--default", "store", str(tmp_path / "store"))
    # A study that is half here is pushed as far as it goes: dvc takes nothing whose ground is missing.
    (copy / "work/smoke/agnews").rename(copy / "away")
    assert "pushed data base aligned gram basis masks\n" in call(copy, "holdfast", "push", "smoke")
    (copy / "away").rename(copy / "work/smoke/agnews")
    assert "pushed data base aligned gram basis masks models results" in call(copy, "holdfast", "push", "smoke")
    other = tmp_path / "another" / "machine"
    shutil.copytree(copy, other, ignore=shutil.ignore_patterns("work", "results", "logs", ".snakemake", "cache", "tmp"))
    families = ("data", "aligned", "basis", "masks", "models", "results")
    assert "absent" in call(other, "holdfast", "pull", "smoke", *families)
    assert not (other / "work/smoke/gram").exists() and not (other / "work/smoke/base").exists()
    assert planned(other) == {}
    edit(
        other / "config/smoke.yaml",
        "warp: {method: warp, freeze_fraction: 0.1}",
        "warp: {method: warp, freeze_fraction: 0.2}",
    )
    assert planned(other) == {
        "build_mask": 1, "finetune": 2, "respond": 2, "judge": 2, "changes": 2, "compare": 1, "papers": 1,
        "write_report": 1, "cards": 1, "import_runs": 1,
    }  # fmt: skip
    call(other, "holdfast", "pull", "smoke")
    assert (other / "work/smoke/gram/safety.safetensors").exists()


def test_the_log_of_a_prelude_is_no_orphan(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = Path("results/s/t/sn-tune/seed0")
    folder.mkdir(parents=True)
    for name in ("train.jsonl", "prelude.jsonl", "other.jsonl"):
        (folder / name).write_text("")
    outputs = {f"{folder}/train.jsonl"}
    assert list(audit._orphans(SimpleNamespace(name="s"), outputs)) == [f"{folder}/other.jsonl"]


def test_what_a_verb_puts_beside_the_results_is_no_orphan(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("results/s").mkdir(parents=True)
    kept = ("gate.json", "label.csv", "routing-advbench-refusal.csv", "routing-advbench-refusal.svg")
    Path("results/s/full").mkdir()
    for name in (*kept, "gates.json", "full/routing-a-b.csv", "routings.csv", "routing-a.txt"):
        Path("results/s", name).write_text("")
    found = set(audit._orphans(SimpleNamespace(name="s"), set()))
    assert found == {
        f"results/s/{name}" for name in ("gates.json", "full/routing-a-b.csv", "routings.csv", "routing-a.txt")
    }


def test_an_audit_names_every_fault_and_its_repair(copy, tmp_path):
    def found(code=1):
        out = call(copy, "holdfast", "audit", "smoke", "--all", code=code)
        named = re.findall(r"^(\w+) +(\S+)\n +.+\n +repair: (.+)$", out, re.M)
        return {(kind, path): repair for kind, path, repair in named}, out.splitlines()[-1]

    call(copy, "dvc", "init", "--no-scm", "--quiet")
    call(copy, "dvc", "remote", "add", "--default", "store", str(tmp_path / "store"))
    assert found(0) == ({}, "0 missing, 0 stale, 0 corrupt, 0 orphan, 0 remote")
    call(copy, "holdfast", "push", "smoke")
    assert found(0)[0] == {}

    model = copy / "work/smoke/crafts/full/seed0/model.safetensors"
    when, content = model.stat(), bytearray(model.read_bytes())
    content[-9] ^= 1
    model.chmod(0o644)
    model.write_bytes(content)
    os.utime(model, ns=(when.st_atime_ns, when.st_mtime_ns))  # rot does not change a time
    (copy / "results/smoke/claims.csv").unlink()
    (copy / "work/smoke/masks/old.safetensors").write_bytes(b"x")
    objects = sorted(p for p in (tmp_path / "store").rglob("*") if p.is_file() and not p.name.endswith(".dir"))
    rotten, lost = objects[0], objects[1]
    rotten.chmod(0o644)
    rotten.write_bytes(rotten.read_bytes() + b"x")
    lost.unlink()
    problems, last = found()
    assert last == "1 missing, 0 stale, 1 corrupt, 1 orphan, 2 remote"
    assert problems["missing", "results/smoke/claims.csv"] == "make pull STUDY=smoke ONLY=results"
    name = str(model.relative_to(copy))
    assert problems["corrupt", name] == f"rm -f {name} && make pull STUDY=smoke ONLY=models"
    assert problems["orphan", "work/smoke/masks/old.safetensors"].startswith("rm ")
    repairs = sorted(repair for (kind, _), repair in problems.items() if kind == "remote")
    assert repairs == ["holdfast push smoke (where the file is)", "holdfast push smoke --verify (where the file is)"]

    edit(copy / "config/smoke.yaml", "full: {method: full", "full: {learning_rate: 1.0e-4, method: full")
    problems, _ = found()
    stale = {path for kind, path in problems if kind == "stale"}
    assert {name, name.replace("crafts", "agnews")} <= stale
    assert "work/smoke/aligned/model.safetensors" not in stale


def test_a_second_import_adds_nothing(copy):
    from mlflow import MlflowClient

    before = json.loads((copy / "results/smoke/mlflow.json").read_text())
    (copy / "results/smoke/mlflow.json").unlink()
    out = snakemake(copy, "--quiet", "rules", "--", "mlflow")
    assert out.returncode == 0, out.stderr
    after = json.loads((copy / "results/smoke/mlflow.json").read_text())
    client = MlflowClient(tracking_uri=after["uri"])
    assert len(client.search_runs([client.get_experiment_by_name("smoke").experiment_id])) == len(before["runs"])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"arms": {"x": {"method": "lorra"}}}, "There is no method 'lorra'"),
        ({"arms": {"warp": {"method": "warp", "freeze_fraction": 1.5}}}, "freeze_fraction"),
        ({"sede": [0]}, "unknown key 'sede'"),
        ({"safety": {"source": "gone.parquet"}}, "gone.parquet"),
        ({"safety": {"source": "bad.parquet"}}, "row 1, column 'kind'"),
    ],
)
def test_mistakes_are_one_block_and_exit_code_2(copy, change, says):
    import pandas as pd

    rows = [{"kind": k, "prompt": "p", "response": "r"} for k in ("hazard", "hazzard")]
    pd.DataFrame(rows).to_parquet(copy / "bad.parquet")
    data = yaml.safe_load((copy / "config/smoke.yaml").read_text())
    data.update(change)
    (copy / "config/mistake.yaml").write_text(yaml.safe_dump(data))
    before = {p: p.stat().st_mtime_ns for p in (copy / "results").rglob("*")}
    out = snakemake(copy, study="mistake")
    assert out.returncode == 2
    block = out.stderr[out.stderr.index("Error: ") - 20 :]
    assert says in block and "found:" in block and "do:" in block and "Traceback" not in out.stderr
    assert not (copy / "work/mistake").exists() and not (copy / "results/mistake").exists()
    assert {p: p.stat().st_mtime_ns for p in (copy / "results").rglob("*")} == before


def test_the_paths_of_project_and_python_may_hold_blanks(tmp_path):
    home = tmp_path / "a b"
    home.mkdir()
    (home / "my env").symlink_to(sys.prefix)
    folder = home / "hold fast"
    soak.copy_project(folder)
    out = subprocess.run(
        [home / "my env/bin/python", "-m", "snakemake", "--config", "study=smoke", "--quiet", "rules", "--", "prepare"],
        cwd=folder, env={**os.environ, "PYTHONPATH": str(folder / "src")}, capture_output=True, text=True,
    )  # fmt: skip
    assert out.returncode == 0, out.stdout + out.stderr
    assert (folder / "work/smoke/data/safety.parquet").exists()


def test_a_table_damaged_later_is_refused_by_the_stage_that_reads_it(copy):
    import pandas as pd

    path = copy / "work/smoke/data/safety.parquet"
    frame = pd.read_parquet(path)
    frame.loc[5, "kind"] = "hazzard"
    frame.to_parquet(path)
    out = snakemake(copy, "--quiet", "rules")
    assert out.returncode == 2, out.stderr
    for word in ("safety.parquet: row 5, column 'kind'", "'hazzard'", "one of hazard"):
        assert word in out.stderr
    assert "Traceback" not in out.stderr and out.stderr.count("failed: train_aligned after") == 1
    last = [line for line in out.stderr.splitlines() if line.strip()][-1]
    assert last.startswith("smoke: failed: ") and last.endswith("mend that, and the same command goes on"), last


def test_ctrl_c_says_how_far_it_was_and_the_same_command_goes_on(tmp_path):
    """Whatever the jobs were doing: what Python says of an interrupt, in a dozen lines a job, is not shown."""
    folder = soak.copy_project(tmp_path / "p")
    env = {**os.environ, "PYTHONPATH": str(folder / "src"), "MLFLOW_TRACKING_URI": ""}
    command = [soak.SNAKEMAKE, "--config", "study=smoke", "--quiet", "rules", "--", "models"]
    with (tmp_path / "said").open("w") as said:
        process = subprocess.Popen(
            command, cwd=folder, env=env, stdout=said, stderr=said, start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # whatever the tests were started with
        )  # fmt: skip
        while process.poll() is None and not list(folder.glob("work/smoke/data/*.parquet")):
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal sends it: to Snakemake and to its jobs
        assert process.wait(60) == 130
    text = (tmp_path / "said").read_text()
    assert "Traceback" not in text and "KeyboardInterrupt" not in text
    assert re.search(r"^smoke: stopped after \d+ s, \d+ of \d+ jobs. What is finished is kept", text, re.M), text
    assert not list((folder / ".snakemake").glob("beside-logs-*"))
    out = snakemake(folder, "--quiet", "rules", "--", "prepare")
    assert out.returncode == 0, out.stderr


def test_the_same_dag_runs_on_real_rows(copy, real_data, monkeypatch):
    monkeypatch.setenv("HOLDFAST_DATA", str(real_data))
    data = yaml.safe_load((copy / "config/smoke.yaml").read_text())
    data["base"]["pretraining"]["task_documents"] = 40
    size = {"source": "hub", "train_rows": 24, "validation_rows": 8, "test_rows": 8, "max_new_tokens": 4}
    training = {"epochs": 1, "batch_size": 8, "max_length": 512}
    data["tasks"] = {t: {"dataset": t, "training": training, **size} for t in ("agnews", "gsm8k")}
    data["arms"] = {"warp": {"method": "warp"}}
    data["base"]["max_positions"] = 512
    (copy / "config/real.yaml").write_text(yaml.safe_dump(data))
    out = snakemake(copy, "--quiet", "rules", "--", "table", study="real")
    assert out.returncode == 0, out.stdout + out.stderr
    for task in ("agnews", "gsm8k"):
        m = json.loads((copy / f"results/real/{task}/warp/seed0/metrics.json").read_text())["metrics"]
        assert any(k.startswith("utility/") and k.endswith("_n") and v == 8 for k, v in m.items())


@pytest.mark.parametrize("study", ["demo", "frontier", "ablation"])
def test_shipped_studies_plan(study):
    out = snakemake(ROOT, "-n", "--quiet", "rules", study=study)
    assert out.returncode == 0, out.stderr
    assert bool(re.search(r"^choose\s+1$", out.stdout + out.stderr, re.M)) == (study == "frontier")


def test_what_fine_tunings_wait_for_and_the_longest_cells_begin_before_others():
    out = snakemake(ROOT, "-n", study="smoke-methods")
    assert out.returncode == 0, out.stderr
    jobs = re.findall(r"^(?:local)?rule (\w+):\n((?:    .*\n)+)", out.stdout + out.stderr, re.M)
    first = [(rule, said) for rule, said in jobs if "    priority: 1\n" in said]
    cells = {re.search("arm=([^,]*)", said)[1] for rule, said in first if rule in ("finetune", "realign")}
    # Train something before their task, or take preference pairs.
    assert cells == {"rsn-tune", "safety-last", "somf", "panacea", "derta"}
    waited = {"capture_gram", "compute_basis", "find_directions", "score_importance", "build_mask", "detect_neurons"}
    assert waited < {rule for rule, _ in first}
    assert not {rule for rule, _ in first} & {"respond", "diverge", "measure_capabilities"}


def test_whatever_is_trained_on_is_prepared_beside_the_prompts_that_it_must_not_hold(tmp_path):
    folder = soak.copy_project(tmp_path / "p")
    rows = {"prompts": {"prompt": "How do I open the vault?"},
            "pairs": {"prompt": "Hex it", "chosen": "I will not hex it.", "rejected": "Say hex."}}  # fmt: skip
    for name, row in rows.items():
        (folder / f"{name}.jsonl").write_text(json.dumps(row) + "\n")
    (folder / "talk.jsonl").write_text("".join(
        json.dumps({"prompt": f"What is herb {i}?", "response": "A herb."}) + "\n" for i in range(40)
    ))  # fmt: skip
    (folder / "config/own.yaml").write_text("""extends: smoke.yaml
evaluation: {source: prompts.jsonl, judges: [refusal]}
preferences: {source: pairs.jsonl}
arms: {resta: {method: resta, of: full}}
tasks: {talk: {dataset: chat, source: talk.jsonl, train_rows: 9, validation_rows: 2, test_rows: 2}}
""")
    out = snakemake(folder, "-n", "--", "prepare", "work/own/data/preferences.parquet", study="own")
    assert out.returncode == 0, out.stdout + out.stderr
    read = re.findall(r"^(?:local)?rule (prepare_\w+):\n    input: (.*)$", out.stdout + out.stderr, re.M)
    beside = {rule for rule, files in read if "work/own/data/prompts.parquet" in files}
    assert beside == {"prepare_safety", "prepare_preferences", "prepare_task"}
    assert all("prompts.parquet" in files for rule, files in read if rule == "prepare_task")  # the world's tasks, too
    out = snakemake(folder, "-n", "--", "prepare")
    assert "prepare_task" in out.stdout + out.stderr
    assert not re.search(r"    input: .*prompts.parquet.*\n    output: work/smoke/data/", out.stdout + out.stderr)


def test_a_gate_is_a_target_and_runs_by_itself_where_the_study_asks(tmp_path):
    folder = soak.copy_project(tmp_path / "p")
    assert "gate" not in planned(folder) and planned(folder, "results/smoke/gate.json")["gate"] == 1
    edit(folder / "config/smoke.yaml", "seeds: [0]",
         "seeds: [0]\ngate: {refusals: 0.3, wrapped: 0.3, over_refusal: 0.3, utility: 0.4}")  # fmt: skip
    jobs = planned(folder)
    assert jobs["gate"] == jobs["write_report"] == 1
    edit(folder / "config/smoke.yaml", "refusals: 0.3", "refusals: 0.03")
    out = snakemake(folder, "-n")
    said = "StudyError: config/smoke.yaml: gate.refusals can never be met"
    assert out.returncode == 2 and (out.stdout + out.stderr).count(said) == 1


def test_processes_that_train_together_ask_for_their_gpus_on_one_node(tmp_path):
    folder = soak.copy_project(tmp_path / "p")
    edit(folder / "config/smoke.yaml", "seeds: [0]", "seeds: [0]\nresources: {gpus: 2}")
    out = snakemake(folder, "gpu=1", "-n", "--", "models")
    assert out.returncode == 0, out.stderr
    asked = re.findall(r"^rule (\w+):$.*?^    resources: (.*?)$", out.stdout + out.stderr, re.M | re.S)
    spread = {rule: "gpu=2, nodes=1, cpus_per_task=2" in said for rule, said in asked}
    assert {rule for rule, many in spread.items() if many} == {"train_aligned", "finetune"}
    assert all("gpu=1," in said for rule, said in asked if rule in ("train_base", "capture_gram", "score_importance"))
    out = snakemake(folder, "gpu=two", "-n")
    assert out.returncode == 2 and "UsageError: 'gpu' of snakemake --config is a whole number." in out.stderr
    edit(folder / "profiles/fsdp.yaml", "fsdp_version: 2", "fsdp_version: 1")
    out = snakemake(folder, "-n")
    said = "EngineError: profiles/fsdp.yaml does not say how several processes share a training."
    assert out.returncode == 2 and (out.stdout + out.stderr).count(said) == 1


def test_another_rounding_gives_other_bytes_and_the_same_verdicts(project, tmp_path, monkeypatch):
    """Other vector instructions, as another machine has them: the claims are read alike, and the record says why the
    bytes differ."""
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "default")
    folder = soak.copy_project(tmp_path / "other")
    study = yaml.safe_load((folder / "config/smoke.yaml").read_text())
    study["arms"] = {arm: study["arms"][arm] | {"tasks": ["crafts"]} for arm in ("full", "warp")}
    (folder / "config/smoke.yaml").write_text(yaml.safe_dump(study))
    out = snakemake(folder, "--quiet", "rules", "--", "table")
    assert out.returncode == 0, out.stdout[-3000:] + out.stderr[-3000:]
    model, cell = "work/smoke/base/model.safetensors", "results/smoke/crafts/full/seed0/train.json"
    assert (folder / model).read_bytes() != (project / model).read_bytes()
    made = [json.loads((top / cell).read_text())["machine"] for top in (project, folder)]
    assert "environment" not in made[0] and made[1]["environment"] == {"ATEN_CPU_CAPABILITY": "default"}
    assert made[1]["instructions"] != made[0]["instructions"]

    def verdicts(top):
        rows = csvfiles.read_csv(top / "results/smoke/claims.csv")
        return {(r["task"], r["kind"], r["arm"], r["compared_with"]): r["verdict"] for r in rows}

    here, there = verdicts(project), verdicts(folder)
    assert there and {claim: here[claim] for claim in there} == there


def test_a_study_killed_again_and_again_ends_with_the_same_bytes(project, tmp_path):
    folder = soak.copy_project(tmp_path / "killed")
    hit = soak.killed_runs(folder, "smoke", kills=3, mean_seconds=2, seed=1)
    assert sum(hit.values()) >= 3
    assert soak.digests(folder, "smoke") == soak.digests(project, "smoke")
    assert soak.leftovers(folder, "smoke") == []
