"""`holdfast crate`: a finished study as a Workflow Run RO-Crate, a folder that other tools can read.

In it: the study file and those it builds on, the workflow, every small result and what made each (provenance), and as
the run one action with its times. Models and other tensors stay where they are; cards.json has their sha256.
Profile: https://w3id.org/ro/wfrun/workflow/0.5. Needs the extra `crate`.
"""

from __future__ import annotations

import mimetypes
import shutil
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from holdfast.archive import snapshot
from holdfast.engines import snakemake
from holdfast.errors import ArtifactError
from holdfast.study import reading, resolve

PROFILES = ("https://w3id.org/ro/wfrun/process/0.5", "https://w3id.org/ro/wfrun/workflow/0.5",
            "https://w3id.org/workflowhub/workflow-ro-crate/1.0")  # fmt: skip
PARAMETER = "https://bioschemas.org/profiles/FormalParameter/1.0-RELEASE"
LICENCE = "https://spdx.org/licenses/Apache-2.0"
WORKFLOW = ("Snakefile", "rules", "scripts", "src/holdfast", "pyproject.toml", "constraints.txt", "profiles/default")
_ABOUT = {
    "table.csv": "every arm on every task, with 95 % intervals", "claims.csv": "pairwise claims with their verdicts",
    "report.html": "the report", "cost.csv": "seconds and memory of every cell", "pareto.csv": "the Pareto front",
    "forgetting.csv": "refusals lost per category of requests",
    "papers.csv": "published numbers beside ours", "cards.json": "sha256 of every model",
    "agreement.json": "agreement of the judges", "gate.json": "which arms may be shipped, and why",
}  # fmt: skip


_FORMATS = {".yaml": "application/yaml", ".parquet": "application/vnd.apache.parquet", ".jsonl": "application/jsonl",
            ".md": "text/markdown", ".tex": "application/x-tex", ".toml": "application/toml"}  # fmt: skip


def _format(path: Path) -> str:
    """The media type of a file."""
    return _FORMATS.get(path.suffix) or mimetypes.guess_type(path.name)[0] or "text/plain"


def layers(path: Path) -> list[Path]:
    """A study file and every file it extends or takes choices from."""
    out, todo = [], [path]
    while todo:
        file = todo.pop(0)
        if file in out or not file.is_file():
            continue
        out.append(file)
        found = reading.read_yaml(file)
        chosen = found.get("chosen") or []
        todo += [
            file.parent / name
            for name in ([chosen] if isinstance(chosen, str) else chosen) + [found.get("extends") or ""]
            if name
        ]
    return out


def _times(study: resolve.Resolved) -> tuple[str, str]:
    """When the first job of a study began and the last one ended, by Snakemake's own records."""
    prefixes = snapshot.prefixes([study.name])
    of = [r for path, r in snakemake.records(Path()) if path.startswith(tuple(prefixes)) and r.get("starttime")]
    if not of:
        raise ArtifactError(
            f"There is no record of a run of {study.name} here.", found="no metadata of its results",
            expected="a finished or pulled study", do=f"make demo STUDY={study.name}, or make pull STUDY={study.name}",
        )  # fmt: skip
    stamps = min(r["starttime"] for r in of), max(r.get("endtime") or r["starttime"] for r in of)
    began, ended = (datetime.fromtimestamp(s, UTC).isoformat(timespec="seconds") for s in stamps)
    return began, ended


def build(study: resolve.Resolved, out: Path) -> Path:
    """Write the crate of a finished study into the folder `out`, which must not exist.

    Raises:
        ArtifactError: the study is not finished, the workflow is not here, or `out` is there.
    """
    from rocrate.model.contextentity import ContextEntity
    from rocrate.rocrate import ROCrate

    results = Path("results") / study.name
    if not (results / "table.csv").exists():
        raise ArtifactError(
            f"The study {study.name} has no table yet.", found=f"no {results / 'table.csv'}",
            expected="a finished study", do=f"make demo STUDY={study.name}",
        )  # fmt: skip
    if not Path("Snakefile").is_file():
        raise ArtifactError(
            "A crate holds the workflow, which is not here.", found=f"no Snakefile in {Path.cwd()}",
            expected="the project that made the study", do="cd to the folder with the Snakefile",
        )  # fmt: skip
    if out.exists():
        raise ArtifactError(
            f"{out} is there already.",
            found="something of that name",
            expected="nothing",
            do="name another folder: --out WHERE",
        )
    began, ended = _times(study)
    crate = ROCrate(gen_preview=False, version="1.1")
    root = crate.root_dataset

    def entity(identifier: str, **properties: Any) -> Any:
        return crate.add(ContextEntity(crate, identifier, properties={k.rstrip("_"): v for k, v in properties.items()}))

    root["name"] = f"holdfast study {study.name}"
    root["description"] = study.study.description or f"A run of the study {study.name}."
    root["datePublished"] = ended
    root["license"] = entity(LICENCE, **{"@type": "CreativeWork"}, name="Apache License 2.0", url=LICENCE)
    root["conformsTo"] = [entity(p, **{"@type": "CreativeWork"}, name=p.split("/")[-2], version=p.split("/")[-1])
                          for p in PROFILES]  # fmt: skip

    workflow = crate.add_workflow(
        "Snakefile", "Snakefile", main=True, lang="snakemake", lang_version=version("snakemake")
    )
    workflow["name"], workflow["license"], workflow["version"] = "holdfast", root["license"], version("holdfast")
    workflow["encodingFormat"] = "text/plain"
    workflow["conformsTo"] = {"@id": "https://bioschemas.org/profiles/ComputationalWorkflow/1.0-RELEASE"}
    if Path("README.md").is_file():
        crate.add_file("README.md", "README.md", properties={"encodingFormat": "text/markdown", "about": {"@id": "./"}})
    for name in WORKFLOW[1:]:
        source = Path(name)
        for file in sorted(source.rglob("*")) if source.is_dir() else [source]:
            if file.is_file() and "__pycache__" not in file.parts:
                crate.add_file(file, file.as_posix(), properties={"encodingFormat": _format(file)})

    objects, produced = [], []
    inputs: list[Any] = []
    outputs: list[Any] = []

    def parameter(name: str, *, about: str, into: list[Any]) -> Any:
        into.append(
            entity(f"#{name}", **{"@type": "FormalParameter"}, name=name, additionalType="File", description=about,
                   conformsTo={"@id": PARAMETER})
        )  # fmt: skip
        return into[-1]

    for file in layers(study.path):
        added = crate.add_file(file, f"config/{file.name}", properties={"encodingFormat": _format(file)})
        of = "study" if file == study.path else f"study-{file.stem}"
        added["exampleOfWork"] = parameter(of, about="a study file, or one it builds on", into=inputs)
        objects.append(added)
    for file in sorted(p for p in results.rglob("*") if p.is_file()):
        name = file.relative_to(results).as_posix()
        about = {"description": _ABOUT[name]} if name in _ABOUT else {}
        properties = {"contentSize": str(file.stat().st_size), "encodingFormat": _format(file)} | about
        added = crate.add_file(file, f"results/{name}", properties=properties)
        if name in _ABOUT:
            added["exampleOfWork"] = parameter(file.stem, about=_ABOUT[name], into=outputs)
        produced.append(added)
    workflow["input"], workflow["output"] = inputs, outputs
    run = entity("#run", **{"@type": "CreateAction"}, name=f"run of {study.name}", startTime=began, endTime=ended)
    run["instrument"], run["object"], run["result"] = workflow, objects, produced
    run["description"] = f"snakemake --config study={study.name}"
    run["actionStatus"] = "http://schema.org/CompletedActionStatus"
    root["mentions"] = run

    temporary = out.with_name(f".{out.name}.writing")
    shutil.rmtree(temporary, ignore_errors=True)
    crate.write(temporary)
    temporary.replace(out)
    return out
