"""What rules of several families ask: digests of code, wildcards, and the inputs that depend on the study."""

import functools
from types import SimpleNamespace

from holdfast.names import GRAMS
from holdfast.study import attacking, attacks, inputs, registry


@functools.cache
def code(script, *modules):
    """Digest of what a stage's code does; methods and datasets are loaded by name, so name them here."""
    return provenance.code_digest(
        ROOT / "scripts" / f"{script}.py", *(provenance.PACKAGE / m for m in modules)
    )


def asked_of(*sources):
    """The prompts that rows of these may not hold; nothing where all are the world's, which are drawn apart."""
    apart = {*sources, S.study.evaluation.source} == {"world"}
    return [] if apart else f"{W}/data/prompts.parquet"


@functools.cache
def requests():
    """Stage of the cost model -> what its jobs ask of a scheduler; nothing where jobs run here, whose planning knows no
    torch, nor in a job, which was given it."""
    if workflow.local_exec or workflow.remote_exec:
        return {}
    from holdfast.cli.plan import measured_rate
    from holdfast.study import costs
    from holdfast.study import requests as asked

    known = config.get("tflops")
    rate = float(known) * 1e12 if known else None if GPU else measured_rate()
    shape = costs.shape_of(S.study.foundation)
    return asked.of_stages(S, shape, gpu=bool(GPU), rate=rate)


def asks(stage, *, mem_mb, runtime, **more):
    """The resources of a rule: on a cluster those of its stage of the cost model, else and without one the numbers
    here; after a failure (`retries`) so much more. Where no nodes are asked for, the numbers as they are: to
    call functions for every job takes Snakemake most of a second per thousand cells.
    """
    if workflow.nodes is None and workflow.is_main_process:
        return {"mem_mb": mem_mb, "runtime": runtime} | more

    def memory(wildcards, attempt):
        found = requests().get(stage)
        return attempt * (found.mem_mb if found else mem_mb)

    def minutes(wildcards, attempt):
        found = requests().get(stage)
        return attempt * (found and found.minutes or runtime)

    return {"mem_mb": memory, "runtime": minutes} | more


def spread(stage, *, mem_mb, runtime):
    """The resources of a rule whose processes train one model together, all of them on one node."""
    node = {"nodes": 1, "cpus_per_task": TOGETHER} if TOGETHER > 1 else {}
    return asks(stage, mem_mb=mem_mb, runtime=runtime, gpu=GPU * TOGETHER, **node)


@functools.cache
def trains_on_refusals(method):
    """Whether a method takes safety rows."""
    return "safety" in registry.header(method).needs


def one_of(names):
    """A wildcard that is one of these names, or nothing at all."""
    return "|".join(n.replace(".", r"\.") for n in names) or "(?!)"


def shipped(path):
    """A file of the project, also when Snakemake works in another folder."""
    return path if Path(path).exists() else str(ROOT / path)


if TOGETHER > 1:
    here = GPU and workflow.local_exec and not workflow.output_settings.dryrun
    accelerate = shipped(config.get("accelerate", "profiles/fsdp.yaml"))
    preflight.together(TOGETHER, accelerate, on_gpus_here=here)


def home(what, w, name=None):
    """The model that a replicate starts from (`base`, `start`) or has (`aligned`), or what was made from that alone,
    where it lies."""
    return f"{W}/{S.home(what, w.rep)}{name or f'{what}/model'}.safetensors"


def from_home(what, name=None):
    """`home` as an input. Without replicates it is the same for every job, and nobody has to be asked."""
    if len(S.folders) > 1:
        return lambda w: home(what, w, name)
    return f"{W}/{name or f'{what}/model'}.safetensors"


def mixed_with(w):
    """The base model, where a stress mixes with it."""
    return {"base": home("base", w)} if S.study.stress[w.stress].base else {}


def basis_inputs(w):
    """The output side needs the model's weights; the permuted basis is the safety basis with more."""
    needs = {"gram": rules.capture_gram.output[0]}
    if w.basis in ("output", "permuted"):
        needs["model"] = rules.train_aligned.output.model
    if w.basis == "permuted":
        needs["basis"] = f"{W}/{w.rep}basis/safety.safetensors"
    return needs


def mask_inputs(w):
    spec = S.masks[w.mask]
    needs = {"safety": f"{W}/{w.rep}importance/{spec.basis}.safetensors"}
    if spec.minus_task:
        needs["task"] = (
            f"{W}/{w.rep}importance/{spec.basis}-{spec.minus_task}.safetensors"
        )
    return needs


def cell_artifacts(w):
    """Tensor files this arm asks for, and models beside the aligned one, by name."""
    arm = S.arms[w.arm]
    needs = {}
    if trains_on_refusals(arm.method):
        needs["safety"] = f"{W}/{S.home('aligned', w.rep)}data/safety.parquet"
    if S.study.tasks[w.task].harmful_fraction or arm.preferences:
        needs["harmful"] = rules.prepare_preferences.output[0]
    if basis := S.basis_name(w.arm, w.task):
        needs["basis"] = home("aligned", w, f"basis/{basis}")
    if mask := S.mask_name(w.arm, w.task):
        needs["mask"] = home("aligned", w, f"masks/{mask}")
    return needs | models_and_gram(w)


def models_and_gram(w):
    """The models beside the aligned one, by role, and the Gram matrices that an arm asks for."""
    arm = S.arms[w.arm]
    needs = {
        role: home("base" if role == "base" else "aligned", w, f"{role}/model")
        for role in arm.roles
    }
    return needs | (
        {"gram": home("aligned", w, f"gram/{arm.gram}")} if arm.gram else {}
    )


def merge_inputs(w):
    """The models and tables this arm merges, by role."""
    arm = S.arms[w.arm]
    cell = f"{W}/{w.rep}{{task}}/{arm.of}/seed{w.seed}/model.safetensors"
    needs = {
        "aligned": home("aligned", w, "aligned/model"),
        **models_and_gram(w),
        "finetuned": cell.format(task=w.task),
    }
    if arm.across_tasks:
        needs["others"] = [
            cell.format(task=t) for t in S.arms[arm.of].learning_rates if t != w.task
        ]
    if arm.preferences:
        needs["preferences"] = rules.prepare_preferences.output[0]
    return needs


def attack_inputs(w):
    """What the fine-tuning of a defence needs, and where that is a merge what it merges."""
    own = attacks.trained(S, w.arm)
    needs = cell_artifacts(SimpleNamespace(rep=w.rep, task=w.task, arm=own))
    if S.study.attack.harmful:
        needs["harmful"] = rules.prepare_preferences.output[0]
    if S.arms[w.arm].kind == "merge":
        merged = merge_inputs(w)
        if "gram" in merged:  # the fine-tuning may ask for matrices of another kind
            merged["merged_gram"] = merged.pop("gram")
        needs |= {k: v for k, v in merged.items() if k not in ("finetuned", "aligned")}
    full = attacks.reference(S, w.task)
    needs["full_answers"] = (
        f"{R}/{w.rep}{w.task}/{full}/seed{w.seed}/validation/responses.parquet"
    )
    needs["aligned_answers"] = (
        f"{R}/{S.home('aligned', w.rep)}models/aligned/validation/responses.parquet"
    )
    return needs


def datasets(tasks):
    return [f"data/{S.study.tasks[t].dataset}.py" for t in tasks]


def scorers(tasks):
    """Datasets, and the user's own files that score tables."""
    return [*datasets(tasks), *S.scorer_files(tasks)]


def opinions_of(model, task=None, arm=None):
    """What the models and servers that are asked about a model say of it."""
    return [
        f"{R}/{model}/opinions/{name}.parquet" for name in S.judging.opinions(task, arm)
    ]


def captioned(path, name):
    """A result that `snakemake --report` shows, with its caption."""
    return report(path, caption=f"../docs/captions/{name}.rst", category=S.name)
