"""What rules of several families ask: digests of code, wildcards, and the inputs that depend on the study."""

from holdfast.data import sources
from holdfast.data.sources import is_file
from holdfast.study import registry


def code(script, *modules):
    """Digest of what a stage's code does; methods and datasets are loaded by name, so name them here."""
    return provenance.code_digest(
        ROOT / "scripts" / f"{script}.py", *(provenance.PACKAGE / m for m in modules)
    )


def one_of(names):
    """A wildcard that is one of these names, or nothing at all."""
    return "|".join(n.replace(".", r"\.") for n in names) or "(?!)"


def shipped(path):
    """A file of the project, also when Snakemake works in another folder."""
    return path if Path(path).exists() else str(ROOT / path)


def source_files(source, dataset=None):
    """Local files a table is made from, so that a changed file remakes it."""
    if not is_file(source):
        return []
    return sources.local_files(dataset, source) if dataset else [source]


def basis_inputs(w):
    """The output side needs the model's weights; the permuted basis is the safety basis with more."""
    needs = {"gram": rules.capture_gram.output[0]}
    if w.basis in ("output", "permuted"):
        needs["model"] = rules.train_aligned.output.model
    if w.basis == "permuted":
        needs["basis"] = f"{W}/basis/safety.safetensors"
    return needs


def mask_inputs(w):
    spec = S.masks[w.mask]
    needs = {"safety": f"{W}/importance/{spec.basis}.safetensors"}
    if spec.minus_task:
        needs["task"] = f"{W}/importance/{spec.basis}-{spec.minus_task}.safetensors"
    return needs


def cell_artifacts(w):
    """Tensor files this arm asks for, by name."""
    arm = S.arms[w.arm]
    needs = {}
    if "safety" in registry.header(arm.method).needs:
        needs["safety"] = rules.prepare_safety.output[0]
    if S.study.tasks[w.task].harmful_fraction:
        needs["harmful"] = rules.prepare_preferences.output[0]
    if arm.basis:
        needs["basis"] = f"{W}/basis/{arm.basis}.safetensors"
    if mask := S.mask_name(w.arm, w.task):
        needs["mask"] = f"{W}/masks/{mask}.safetensors"
    return needs


def merge_inputs(w):
    """The models and tables this arm merges, by role."""
    arm = S.arms[w.arm]
    cell = f"{W}/{{task}}/{arm.of}/seed{w.seed}/model.safetensors"
    needs = {role: f"{W}/{role}/model.safetensors" for role in ("aligned", *arm.roles)}
    needs["finetuned"] = cell.format(task=w.task)
    if arm.across_tasks:
        needs["others"] = [
            cell.format(task=t) for t in S.arms[arm.of].learning_rates if t != w.task
        ]
    if arm.gram:
        needs["gram"] = rules.capture_every_gram.output[0]
    if arm.preferences:
        needs["preferences"] = rules.prepare_preferences.output[0]
    return needs


def datasets(tasks):
    return [f"data/{S.study.tasks[t].dataset}.py" for t in tasks]


def opinions_of(model, task=None, arm=None):
    """What the models and servers that are asked about a model say of it."""
    return [
        f"{R}/{model}/opinions/{name}.parquet" for name in S.judging.opinions(task, arm)
    ]


def metrics_of(cells):
    """The metrics of the roles and of these cells."""
    return [f"{R}/models/{role}/metrics.json" for role in S.roles] + [
        f"{R}/{task}/{arm}/seed{seed}/metrics.json" for task, arm, seed in cells
    ]


def captioned(path, name):
    """A result that `snakemake --report` shows, with its caption."""
    return report(path, caption=f"../docs/captions/{name}.rst", category=S.name)
