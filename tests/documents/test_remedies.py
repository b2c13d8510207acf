"""docs/which-remedy.md follows its result files, and docs/api.md the functions there are."""

from __future__ import annotations

import inspect
import re
import shutil

import pytest
from conftest import ROOT

import holdfast
from holdfast import merge, protect
from holdfast.documents import interface, remedies, tables
from holdfast.record import csvfiles
from holdfast.study import registry


@pytest.fixture
def docs(tmp_path):
    for name in ("demo", "real"):
        (tmp_path / name).mkdir()
        for path in (ROOT / "docs" / name).glob("*.csv"):
            shutil.copy(path, tmp_path / name)
    return tmp_path


def change(path, wanted: dict[str, str], **new: str) -> None:
    rows = csvfiles.read_csv(path)
    (row,) = (r for r in rows if all(r[k] == v for k, v in wanted.items()))
    row.update(new)
    csvfiles.write_csv(path, rows)


def failed(docs, name: str) -> str:
    """The last cell of a remedy's line in the table of facts."""
    lines = [x for x in remedies.page(docs).splitlines() if x.startswith(f"| [`{name}`]")]
    return lines[-1].rsplit(" | ", 1)[1].removesuffix(" |")


@pytest.fixture
def steady(docs):
    """The files with every model as good sampled as it was, and the real model's claims about refusals all resolved."""
    rows = csvfiles.read_csv(docs / "demo/stress.csv")
    plain = {(r["task"], r["arm"]): r for r in rows if r["stress"] == "as it was"}
    utility = ("utility", "utility_low", "utility_high")
    csvfiles.write_csv(
        docs / "demo/stress.csv", [r | {k: plain[r["task"], r["arm"]][k] for k in utility} for r in rows]
    )
    claims = csvfiles.read_csv(docs / "real/claims.csv")
    resolved = [r | {"verdict": "holds"} if r["kind"] == "refusal" else r for r in claims]
    csvfiles.write_csv(docs / "real/claims.csv", resolved)
    return docs


def test_sampling_counts_as_a_failure_where_it_takes_more_than_half_of_the_task(steady):
    assert "sampled" not in failed(steady, "warp")
    hot = {"task": "gsm8k", "arm": "warp", "stress": "hot"}
    plain = next(
        r for r in csvfiles.read_csv(steady / "demo/stress.csv")
        if r["task"] == "gsm8k" and r["arm"] == "warp" and r["stress"] == "as it was"
    )  # fmt: skip
    low = float(plain["utility_low"])
    change(steady / "demo/stress.csv", hot, utility="0.2", utility_low="0.1", utility_high=str(0.51 * low))
    assert "sampled" not in failed(steady, "warp")
    change(steady / "demo/stress.csv", hot, utility_high="0.29")
    was = f"{100 * float(plain['utility']):.0f} %"
    assert failed(steady, "warp") == f"stories: 20 % [10, 29] utility when [sampled](stress.md), greedily {was}"


def test_a_remedy_that_lost_nothing_is_not_called_failed_and_one_that_did_is(steady):
    docs = steady
    assert failed(docs, "lead") == "not seen to fail in these studies"
    area = {"task": "gsm8k", "family": "lead", "measure": "area"}
    change(docs / "demo/curves.csv", area, refusal="0.31")
    assert failed(docs, "lead") == "stories: keeps 31 % of the refusals"
    claim = {"task": "notes", "kind": "utility", "arm": "lead"}
    change(docs / "real/claims.csv", claim, effect="-0.2", low="-0.3", high="-0.1", verdict="does not hold")
    assert failed(docs, "lead").endswith("; the real model on notes: −20 [−30, −10] points of utility")


def test_over_refusal_counts_as_a_failure_above_the_aligned_model_only(docs):
    assert "refuses 15 % [9, 23] of harmless requests" in failed(docs, "safety-mix")
    aligned = {"task": "agnews", "arm": "aligned"}
    change(docs / "demo/replicated.csv", aligned, **{"safety/over_refusal_high": "0.2"})
    assert "harmless requests" not in failed(docs, "safety-mix")


def test_what_keeps_most_stands_first(docs):
    def first() -> list[str]:
        return re.findall(r"^\| \[`([a-z-]+)`\]", remedies.page(docs), re.M)

    assert first()[:4] == ["full", "kl-safety", "safety-mix", "lead"]
    for task in tables.TASKS:
        change(docs / "demo/curves.csv", {"task": task, "family": "safety-mix", "measure": "area"}, refusal="0.1")
    assert first()[:3] == ["full", "kl-safety", "lead"]


def test_what_reads_no_safety_data_has_a_table_of_its_own_merges_first(docs):
    part = remedies.page(docs).partition("\n## Without safety data\n")[2].partition("\n## ")[0]
    named = re.findall(r"^\| \[`([a-z-]+)`\]", part, re.M)
    read = {n: {*registry.header(n).needs, *(k for k, v in registry.load(n).Settings().artifacts().items() if v)}
            for n in registry.method_names() if n not in remedies.NOT_REMEDIES}  # fmt: skip
    data = {"safety", "preferences", "basis", "gram", "mask", "directions", "neurons"}
    assert sorted(named) == sorted(n for n, needs in read.items() if not needs & data) and "resta" in named
    kinds = [registry.header(n).kind for n in named]
    assert kinds == sorted(kinds) and set(kinds) == {"merge", "train"}
    assert "| [`safe-lora`](methods.md#safe-lora) | merge | the base model |" in part


def test_every_public_function_is_in_the_reference():
    page = interface.page(ROOT / "src")
    for module, short in ((holdfast, "holdfast"), (protect, "protect"), (merge, "merge")):
        for name, thing in vars(module).items():
            if inspect.isfunction(thing) and thing.__module__ == module.__name__ and not name.startswith("_"):
                assert f"### {short}.{name}\n" in page, name
                for parameter in inspect.signature(thing).parameters:
                    assert re.search(rf"^{short}\.{name}\(.*\b{parameter}\b", page, re.M), (name, parameter)
    assert (
        "Protection.optimizer(" in page
        and "_merged" not in page
        and "self" not in re.sub(r"[a-z]self|itself", "", page)
    )


def test_shares_of_harmful_rows_are_in_order_and_the_best_arm_first():
    rows = [
        {"arm": a, "task": f"harmful-{s}", "harmful_fraction": str(s / 100), "safety/refusal_rate": str(v)}
        for a, s, v in (("x", 10, 0.1), ("x", 5, 0.2), ("y", 10, 0.3), ("y", 5, 0.4))
    ]
    lines = tables.shares([*rows, {"arm": "base", "task": "harmful-5", "harmful_fraction": ""}]).splitlines()
    assert lines[1] == "| arm | 5 % harmful | 10 % harmful |" and lines[3:] == [
        "| `y` | 40 | 30 |",
        "| `x` | 20 | 10 |",
    ]
