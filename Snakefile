"""holdfast: fine-tune a language model without losing its refusals. One study per run:

snakemake                                    the demo study
snakemake --config study=frontier            another study of config/, or a path to a YAML file
snakemake -n | snakemake models | snakemake results/demo/table.csv
"""

import os
import shlex
import sys
from pathlib import Path

from snakemake.utils import min_version

from holdfast.stage import interrupt

interrupt.guard()  # what follows takes seconds

from holdfast.errors import INTERRUPTED
from holdfast.record import portable, provenance
from holdfast.stage import alive, screen, sharing, words
from holdfast.study import preflight
from holdfast.track import reach

min_version("9.20")
preflight.options(
    config, workflow.resource_settings.cores if workflow.local_exec else None
)
# For every job (glibc): freed memory is kept for reuse.
os.environ.setdefault("MALLOC_MMAP_THRESHOLD_", str(2**32))
os.environ.setdefault("MALLOC_TRIM_THRESHOLD_", str(2**32))
# For every job: threads that wait do not spin, which beside other load costs more than it gives. No bit depends on it.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
# For every job: the same bits on processors of every maker; `--config portable=0` takes the fastest instructions instead.
if int(config.get("portable", 1)):
    portable.settle(os.environ)

# Snakemake writes it into command lines as it is, which a blank in the project's path would cut in two.
sys.executable = shlex.quote(sys.executable)

ROOT = Path(workflow.basedir)
FAILED = os.environ.setdefault(
    "HOLDFAST_FAILED", str(Path(".snakemake").resolve() / f"failed-{os.getpid()}")
)
S = preflight.study(
    str(config.get("study", "demo")), ROOT, dry=workflow.output_settings.dryrun
)
alive.guard()
W, R, L = f"work/{S.name}", f"results/{S.name}", f"logs/{S.name}"
GPU = int(config.get("gpu", 0))
# Of what every other job waits for; bytes depend on it, so whatever --cores says. The tiny model loses time to a second.
ALONE = 1 if S.study.foundation.source == "tiny" else 2
# What everything waits for, up to safety training, takes all threads: behind a job of one thread the others would stand idle.
FIRST = 2
# Processes, each with a GPU where jobs have one, that train a model together.
TOGETHER = S.study.resources.gpus


include: "rules/common.smk"


# On a cluster these run where Snakemake does: what takes seconds, what fetches, and what writes MLflow's database.
wildcard_constraints:
    task=one_of(S.study.tasks),
    arm=one_of(S.arms),
    seed=one_of(map(str, S.study.seeds)),
    role="base|aligned|unaligned",
    stress=one_of(S.study.stress),
    basis="safety|random|output|permuted",
    rep=f"({'|'.join(S.folders)})",  # what lies in a replicate's folder, or, empty, in the study's own


rule all:
    default_target: True
    input:
        f"{R}/table.csv",
        f"{R}/claims.csv",
        f"{R}/report.html",
        f"{R}/cards.json",
        f"{R}/mlflow.json",
        [f"{R}/gate.json"] if S.study.gate else [],
        [f"config/{S.study.choose.file}"] if S.study.choose else [],


include: "rules/prepare.smk"
include: "rules/align.smk"
include: "rules/basis.smk"
include: "rules/finetune.smk"
include: "rules/take.smk"
include: "rules/realign.smk"
include: "rules/evaluate.smk"
include: "rules/judge.smk"
include: "rules/attack.smk"
include: "rules/report.smk"
include: "rules/track.smk"


words.guard([rule.name for rule in workflow.rules])


onstart:
    # Its limit of submissions makes Snakemake plan again one timespan after every job, and again after that, for ever:
    # with hundreds of ready jobs a whole core does nothing else. Jobs that run here are submitted to nothing.
    if workflow.local_exec:
        workflow.scheduler.job_rate_limiter = None
        if int(config.get("share", 1)):
            sharing.offer()
    jobs = list(workflow.dag.needrun_jobs())
    numbered = {
        workflow.dag.jobid(j): (j.rule.name, j.wildcards_dict) for j in jobs
    }
    if first := screen.start(S.name, numbered):
        shell.prefix(first.replace("{", "{{").replace("}", "}}") + " ")
    interrupt.begin(screen.halt)
    # There are jobs, and none has begun.
    reach.before(
        S.name,
        {job.rule.name for job in jobs},
        S.study.track.registered if S.study.track else None,
    )


onsuccess:
    screen.end(
        [f"report: {R}/report.html", "make ui: its runs in MLflow"]
        if "write_report" in {j.rule.name for j in workflow.dag.finished_jobs}
        else []
    )


onerror:
    screen.end()
    if interrupt.came():
        sys.exit(INTERRUPTED)
    # A stage that ended with a user's error left a mark; such errors have exit code 2 at planning too.
    if Path(FAILED).exists():
        Path(FAILED).unlink()
        sys.exit(2)
