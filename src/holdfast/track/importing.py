"""Finished cells into MLflow: a view of the files, made after them.

Importing is idempotent (a run is found by its `cell` tag and a digest of its files) and safe in parallel (one lock per
store and cell).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from holdfast import names
from holdfast.data import scorers
from holdfast.evaluate import capabilities
from holdfast.record import jsonfiles, provenance
from holdfast.study import replicates
from holdfast.track import described, lineage, registered, store
from holdfast.track.registered import Registrable
from holdfast.track.store import CELL, DIGEST, STATUS, Say

if TYPE_CHECKING:
    from mlflow.entities import Run

NAMED, DESCRIBED = "named", "described"  # tags that hold the name, and the digest of the note, a run was given here
_PARENT = "mlflow.parentRunId"
_BESIDE = ("train.json", "train.jsonl", "verdicts.parquet", "capabilities.parquet")  # of a cell, beside metrics.json


def arm_name(cell: dict[str, Any]) -> str:
    """What all models of an arm are called together: study, task (`-` for a role) and arm."""
    return f"{cell['study']}/{cell['task'] or '-'}/{cell['arm']}"


def cell_name(cell: dict[str, Any]) -> str:
    """What a cell is called in MLflow: study, replicate where it is another than the first, task (`-` for a role), arm
    and seed."""
    place = replicates.folder(cell.get("replicate", 0))
    return f"{cell['study']}/{place}{cell['task'] or '-'}/{cell['arm']}/seed{cell['seed']}"


def _title(old: list[Run], title: str) -> str:
    """The name a user gave to an earlier run of the cell, or `title`."""
    given = [r.info.run_name for r in old if NAMED in r.data.tags and r.info.run_name != r.data.tags[NAMED]]
    return given[0] if given else title


def _added(old: list[Run]) -> dict[str, str]:
    """Tags and notes a user added to earlier runs of the cell."""
    mine = {CELL, DIGEST, STATUS, NAMED, DESCRIBED, "task", "arm", "method", "seed", "study", "replicate"}
    found: dict[str, str] = {}
    for run in reversed(old):
        tags = run.data.tags
        note = tags.get(described.NOTE)
        if note is not None and provenance.digest(note) != tags.get(DESCRIBED):
            found[described.NOTE] = note
        found |= {k: v for k, v in tags.items() if k not in mine and not k.startswith("mlflow.")}
    return found


def _values(cell: dict[str, Any], metrics_file: Path) -> dict[str, float]:
    """Every number of a cell; `utility` is that of its task, so that arms of several tasks share a column."""
    values, folder = dict(cell["metrics"]), metrics_file.parent
    for suite, rates in cell.get("by_suite", {}).items():
        values |= _in_suite(suite, rates)
    if cell["task"]:
        metric = scorers.metric_of(cell, cell["task"])
        values |= {k.replace(metric, "utility"): v for k, v in values.items() if k in _with_ends(metric)}
    kept = lineage.record_of(metrics_file)
    recorded = (names.SECONDS, names.PEAK_MEMORY, "cost/train_seconds", "frozen_fraction", "frozen_drift")
    values |= {k: kept[k] for k in recorded if k in kept}
    if (folder / "capabilities.parquet").exists():
        values |= capabilities.rates(folder / "capabilities.parquet")
    return values


def _in_suite(suite: str, rates: Mapping[str, Any]) -> dict[str, Any]:
    """The safety rates of one suite's prompts, under names of their own: safety/xstest/refusal_rate."""
    return {k.replace("safety/", f"safety/{suite}/", 1): v for k, v in rates.items() if k.startswith("safety/")}


def _with_ends(rate: str) -> tuple[str, ...]:
    return (rate, f"{rate}_low", f"{rate}_high", f"{rate}_n")


def import_cell(
    opened: dict[str, Any], metrics_file: Path, resolved: dict[str, Any], say: Say, *,
    tables: Mapping[str, Any] | None = None, source: Mapping[str, str] | None = None,
    models: dict[str, str] | None = None,
) -> str:  # fmt: skip
    """Make exactly one finished run of a cell hold what its files say; returns its run id.

    A run whose files have not changed, nor the models it was made from, is left alone, whatever the user renamed or
    added. Otherwise a new run is made complete first and older ones (live, interrupted, outdated) are deleted after.

    Args:
        tables: where the study's rows lie (`lineage.tables`).
        source: tags that say where the study came from.
        models: cell -> id of its model in MLflow, of the cells before; this one's is added.
    """
    from mlflow.entities import LoggedModelInput, LoggedModelOutput, Metric, Param, RunTag

    cell, models = jsonfiles.read_json(metrics_file), {} if models is None else models
    folder = metrics_file.parent
    files = [p for p in (metrics_file, *(folder / name for name in _BESIDE)) if p.exists()]
    name = cell_name(cell)
    before = lineage.parents(cell, models, cell_name)
    digest = provenance.digest([[p.name, provenance.file_digest(p)] for p in files] + before)
    with store.lock(opened["uri"], name):
        client = store.client_of(opened["uri"])
        old = store.runs_of(client, opened["experiment_id"], name)
        logged = lineage.models_of(client, opened["experiment_id"], name)
        done = [r for r in old if r.data.tags.get(DIGEST) == digest and r.info.status == "FINISHED"]
        if done:
            made = done[0].outputs
            assert made is not None  # of a complete import
            kept = {m.model_id for m in made.model_outputs}
            for run in old:
                if run.info.run_id != done[0].info.run_id:
                    client.delete_run(run.info.run_id)
            for other in set(logged) - kept:
                client.delete_logged_model(other)
            models[name] = next(iter(kept))
            return str(done[0].info.run_id)
        points = store.points(folder / "train.jsonl")
        stages = lineage.stages(cell, metrics_file)
        which = f"r{cell['replicate']} s{cell['seed']}" if cell.get("replicate") else f"s{cell['seed']}"
        title = f"{cell['task'] or 'all'} {cell['arm']} {which}"
        values = _values(cell, metrics_file)
        values |= {f"stage/{stage}_seconds": end - start for stage, (start, end) in stages.items()}
        times = [t for span in stages.values() for t in span] or [p.timestamp / 1000 for p in points]
        times = times or [metrics_file.stat().st_mtime]
        started, ended = int(1000 * min(times)), int(1000 * max(times))
        note = described.run(cell, values)
        run = client.create_run(
            opened["experiment_id"],
            start_time=started,
            run_name=_title(old, title),
            tags={described.NOTE: note, **_added(old), **(source or {})} | {
                CELL: name, STATUS: "importing", "task": cell["task"] or "all", "arm": cell["arm"],
                "method": str(cell["method"]), "seed": str(cell["seed"]), "study": cell["study"], NAMED: title,
                "replicate": str(cell.get("replicate", 0)), DESCRIBED: provenance.digest(note),
            },
        )  # fmt: skip
        run_id: str = run.info.run_id
        params = {
            "task": cell["task"], "arm": cell["arm"], "family": cell["family"], "method": cell["method"],
            "seed": cell["seed"], "replicate": cell.get("replicate", 0),
            "learning_rate": cell["learning_rate"], "split": cell["split"],
            **{f"setting.{k}": v for k, v in (cell.get("settings") or {}).items()},
            **{f"training.{k}": v for k, v in (cell.get("training_settings") or {}).items()},
        }  # fmt: skip
        client.log_batch(run_id, params=[Param(k, str(v)[:6000]) for k, v in params.items() if v is not None])
        models[name] = model = lineage.log_model(opened, run_id, cell, name, {described.NOTE: note, **(source or {})})
        client.log_outputs(run_id, [LoggedModelOutput(model, 0)])
        client.log_dict(run_id, lineage.checkpoint(Path(cell["model"])), "checkpoint.json")
        rows = lineage.datasets(cell, tables) if tables else []
        client.log_inputs(run_id, datasets=rows, models=[LoggedModelInput(m) for m in before])
        final = []
        for key, value in sorted(values.items()):
            table, digest_of = lineage.asked_of(key, rows) or (None, None)
            final.append(Metric(key, float(value), ended, 0, model, table, digest_of, run_id))
        store.log_points(client, run_id, points + final)
        for path in files:
            client.log_artifact(run_id, str(path))
        client.log_dict(run_id, resolved, "study.json")
        client.log_batch(run_id, tags=[RunTag(DIGEST, digest), RunTag(STATUS, "imported")])
        client.set_terminated(run_id, "FINISHED", end_time=ended)
        for run in old:
            client.delete_run(run.info.run_id)
        for earlier in logged:
            client.delete_logged_model(earlier)
        say(f"imported {name}: {len(points)} points")
        return run_id


def import_study(
    metrics_files: list[Path], *, extra: list[Path], resolved: dict[str, Any], out: Path, say: Say,
    table: Path | None = None, suites: Path | None = None, tables: Mapping[str, Any] | None = None,
    study_file: str = "",
) -> None:  # fmt: skip
    """Import every cell; of an arm with several models one run above them, with its means and intervals of `table`
    and `suites`; as one run named `comparison` the study's tables, plots and report; and into the registry what
    `track.register` asks for."""
    from holdfast.record import csvfiles

    with store.answering(resolved["study"]) as uri:
        opened = store.experiment(uri, resolved["study"])  # the store need not be the one that was made at the start
        runs: dict[str, str] = {}
        arms: dict[str, list[str]] = {}
        models: dict[str, str] = {}
        source = lineage.source(study_file)
        found = sorted(((p, jsonfiles.read_json(p)) for p in metrics_files), key=_after)
        for path, cell in found:
            name = cell_name(cell)
            runs[name] = import_cell(opened, path, resolved, say, tables=tables, source=source, models=models)
            arms.setdefault(arm_name(cell), []).append(runs[name])
        of_suites: dict[tuple[str, str], dict[str, Any]] = {}
        for row in csvfiles.read_csv(suites) if suites else ():
            of_suites.setdefault((row["task"], row["arm"]), {}).update(_in_suite(row["suite"], row))
        for row in csvfiles.read_csv(table) if table else ():
            row |= of_suites.get((row["task"], row["arm"]), {})
            row["task"] = "" if row["arm"] in names.ROLES else row["task"]
            name = arm_name(row)
            if len(arms.get(name, ())) > 1 and name not in runs:
                runs[name] = _import_arm(opened, row, arms[name], source)
        runs["comparison"] = _import_comparison(opened, extra, resolved)
        asked = resolved.get("track") or {}
        if asked.get("register"):
            cells = [Registrable(c, cell_name(c), models[cell_name(c)], runs[cell_name(c)]) for _, c in found]
            registered.register(opened, asked["register"], cells, say, arms=asked.get("arms"))
        served = {"server": store.without_password(uri).rstrip("/")} if uri.startswith("http") else {}
        view = described.view_address(opened["experiment_id"], **served)
    jsonfiles.write_json(
        out,
        {"uri": store.without_password(opened["uri"]), "experiment": opened["experiment"], "view": view, "runs": runs},
    )
    say(f"MLflow, with the columns that matter: {view}")


def _after(found: tuple[Path, dict[str, Any]]) -> tuple[int, int]:
    """A key that sorts models after those they are made from: roles, what is trained, what is merged."""
    cell = found[1]
    if cell["task"] is None:
        return 0, names.ROLES.index(cell["arm"])
    return (2 if cell.get("of") else 1), 0


def _complete(old: list[Run], digest: str) -> str | None:
    """The run that holds all of this already."""
    done = (r for r in old if r.data.tags.get(DIGEST) == digest and r.info.status == "FINISHED")
    return next((str(r.info.run_id) for r in done), None)


def _import_arm(
    opened: dict[str, Any], row: dict[str, Any], children: Sequence[str], source: Mapping[str, str]
) -> str:  # fmt: skip
    """One run above all models of an arm, with their means and intervals; returns its id."""
    from mlflow.entities import Metric, Param, RunTag

    name, rates = arm_name(row), [k.removesuffix("_low") for k in row if k.endswith("_low") and row[k] != ""]
    rates = [k for k in rates if row["task"] or not k.startswith("utility")]
    values = {k: float(row[k]) for rate in rates for k in _with_ends(rate) if row.get(k)}
    values |= {k: float(row[k]) for k in (names.CHANGED_FRACTION, names.KL) if row["task"] and row.get(k)}
    digest = provenance.digest([row, sorted(children)])
    with store.lock(opened["uri"], name):
        client = store.client_of(opened["uri"])
        old = store.runs_of(client, opened["experiment_id"], name)
        if done := _complete(old, digest):
            return done
        below = [client.get_run(child) for child in children]
        started, ended = min(r.info.start_time for r in below), max(r.info.end_time for r in below)
        spent = [r.data.metrics[names.SECONDS] for r in below if names.SECONDS in r.data.metrics]
        values |= {names.SECONDS: sum(spent) / len(spent)} if spent else {}
        title, note = f"{row['task'] or 'all'} {row['arm']}", described.arm(row, values)
        tags = {
            CELL: name, STATUS: "importing", "task": row["task"] or "all", "arm": row["arm"], "method": row["method"],
            "study": row["study"], NAMED: title, DESCRIBED: provenance.digest(note),
        }  # fmt: skip
        run = client.create_run(
            opened["experiment_id"], start_time=started, run_name=_title(old, title),
            tags={described.NOTE: note, **_added(old), **source} | tags,
        )  # fmt: skip
        run_id = str(run.info.run_id)
        params = {k: row[k] for k in ("task", "arm", "method", "learning_rate", "seeds", "replicates") if row.get(k)}
        client.log_batch(run_id, params=[Param(k, str(v)) for k, v in params.items()])
        store.log_points(client, run_id, [Metric(k, v, ended, 0) for k, v in sorted(values.items())])
        for child in children:
            client.set_tag(child, _PARENT, run_id)
        client.log_batch(run_id, tags=[RunTag(DIGEST, digest), RunTag(STATUS, "imported")])
        client.set_terminated(run_id, "FINISHED", end_time=ended)
        for run in old:
            client.delete_run(run.info.run_id)
        return run_id


def _import_comparison(opened: dict[str, Any], files: list[Path], resolved: dict[str, Any]) -> str:
    digest = provenance.digest([[p.name, provenance.file_digest(p)] for p in files])
    name = f"{resolved['study']}/comparison"
    with store.lock(opened["uri"], name):
        client = store.client_of(opened["uri"])
        old = store.runs_of(client, opened["experiment_id"], name)
        if done := _complete(old, digest):
            return done
        run = client.create_run(
            opened["experiment_id"], run_name="comparison", tags={CELL: name, "study": resolved["study"]}
        )
        for path in files:
            client.log_artifact(run.info.run_id, str(path))
        client.log_dict(run.info.run_id, resolved, "study.json")
        client.set_tag(run.info.run_id, DIGEST, digest)
        client.set_terminated(run.info.run_id, "FINISHED")
        for previous in old:
            client.delete_run(previous.info.run_id)
        return str(run.info.run_id)
