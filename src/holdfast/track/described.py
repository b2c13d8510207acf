"""What a run says of itself in MLflow: its description, and the view that shows what a study is about."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from holdfast import names

if TYPE_CHECKING:
    from mlflow import MlflowClient

NOTE, KIND, VIEW = "mlflow.note.content", "mlflow.experimentKind", "holdfast"
_TRAINING = "custom_model_development"  # the kind of experiment whose runs are trained models
_SAID = {
    names.REFUSAL_RATE: "refuses {} of held-out hazards", names.WRAPPED_REFUSAL_RATE: "{} of wrapped ones",
    names.OVER_REFUSAL: "refuses {} of harmless requests",
}  # fmt: skip
_COLUMNS = (
    "tags.`arm`", "tags.`task`", "params.`learning_rate`", f"metrics.`{names.REFUSAL_RATE}`",
    f"metrics.`{names.OVER_REFUSAL}`", "metrics.`utility`", f"metrics.`{names.CHANGED_FRACTION}`",
    f"metrics.`{names.SECONDS}`",
)  # fmt: skip


def _rate(metrics: dict[str, float], key: str) -> str:
    value, low, high = (100 * metrics[k] for k in (key, f"{key}_low", f"{key}_high"))
    return f"{value:.1f} % [{low:.1f}, {high:.1f}]"


def measured(metrics: dict[str, float]) -> str:
    """How a model did, in a sentence with its 95 % intervals.

    >>> measured({"utility": 0.5, "utility_low": 0.4, "utility_high": 0.6})
    'solves 50.0 % [40.0, 60.0] of the task'
    """
    said = [text.format(_rate(metrics, key)) for key, text in _SAID.items() if f"{key}_low" in metrics]
    said += [f"solves {_rate(metrics, 'utility')} of the task"] if "utility_low" in metrics else []
    return ", ".join(said)


def run(cell: dict[str, Any], metrics: dict[str, float]) -> str:
    """The description of one model: what it is, how it did, where it lies."""
    seed = f", seed {cell['seed']}" if cell["task"] else ""
    replicate = f", replicate {cell['replicate']}" if "replicate" in cell else ""
    what = f"**{cell['arm']}**" + (f" on **{cell['task']}**, method `{cell['method']}`" if cell["task"] else "")
    of = f", merged from `{cell['of']}`" if cell.get("of") else ""
    text = f"{what}{of}{seed}{replicate}: {measured(metrics)} ({cell['split']} split, judge `{cell['judge']}`)."
    return f"{text}\n\nModel: `{cell['model']}`"


def arm(row: dict[str, Any], metrics: dict[str, float]) -> str:
    """The description of all models of an arm."""
    task = f" on **{row['task']}**" if row["task"] else ""
    return (
        f"**{row['arm']}**{task}, method `{row['method']}`: {row['seeds']} seed(s), {row['replicates']} replicate(s). "
        f"Together it {measured(metrics)}; 95 % intervals over replicates, seeds and prompts."
    )


def prepare(client: MlflowClient, experiment_id: str) -> None:
    """Make an experiment open as one of trained models, with a saved view of the columns that matter."""
    client.set_experiment_tag(experiment_id, KIND, _TRAINING)
    view = {
        "searchFilter": "", "orderByKey": f"metrics.`{names.REFUSAL_RATE}`", "orderByAsc": False, "startTime": "ALL",
        "lifecycleFilter": "Active", "selectedColumns": list(_COLUMNS),
    }  # fmt: skip
    client.set_experiment_tag(experiment_id, f"mlflow.sharedViewState.{VIEW}", json.dumps(view))


def view_address(experiment_id: str, server: str = "http://127.0.0.1:5000") -> str:
    """Where that view opens on a server. The page asks the address, not the experiment, which kind it is.

    >>> view_address("1")
    'http://127.0.0.1:5000/#/experiments/1/runs?viewStateShareKey=holdfast&workflowType=machine_learning'
    """
    return f"{server}/#/experiments/{experiment_id}/runs?viewStateShareKey={VIEW}&workflowType=machine_learning"
