"""The crate of a study, checked by the validator of the RO-Crate community."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from conftest import ROOT

from holdfast.archive import crate
from holdfast.engines import snakemake
from holdfast.errors import ArtifactError
from holdfast.study import resolve

pytest.importorskip("rocrate", reason="the extra `crate` is not installed")
CONTEXT = "https://w3id.org/ro/crate/1.1/context"
# The part of the published context that a crate of ours uses, so that no test needs the network.
_B = "https://bioschemas.org/"
_SCHEMA = (
    "CreativeWork", "Dataset", "SoftwareSourceCode", "ComputerLanguage", "CreateAction", "name", "description",
    "datePublished", "license", "version", "url", "identifier", "hasPart", "mainEntity", "mentions", "about",
    "programmingLanguage", "encodingFormat", "contentSize", "exampleOfWork", "additionalType", "instrument", "object",
    "result", "startTime", "endTime", "actionStatus", "alternateName",
)  # fmt: skip
TERMS = {
    "@context": {
        **{term: f"http://schema.org/{term}" for term in _SCHEMA}, "File": "http://schema.org/MediaObject",
        "ComputationalWorkflow": _B + "ComputationalWorkflow", "FormalParameter": _B + "FormalParameter",
        "input": _B + "ComputationalWorkflow#input", "output": _B + "ComputationalWorkflow#output",
        "conformsTo": "http://purl.org/dc/terms/conformsTo",
    }
}  # fmt: skip


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    """A project with a planted finished study and Snakemake's records of it."""
    for name in ("Snakefile", "pyproject.toml", "constraints.txt", "README.md"):
        shutil.copy(ROOT / name, tmp_path)
    for name in ("rules", "scripts", "config", "profiles/default"):
        shutil.copytree(ROOT / name, tmp_path / name)
    (tmp_path / "src/holdfast").mkdir(parents=True)
    (tmp_path / "src/holdfast/__init__.py").write_text("")
    results = tmp_path / "results/smoke"
    for name in ("table.csv", "claims.csv", "report.html", "cards.json", "agnews/full/seed0/metrics.json"):
        (results / name).parent.mkdir(parents=True, exist_ok=True)
        (results / name).write_text("{}")
    records = {f"results/smoke/{n}": {"starttime": 1e9 + i, "endtime": 1e9 + 60 * i} for i, n in enumerate(("a", "b"))}
    monkeypatch.setattr(snakemake, "records", lambda root: iter(records.items()))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_crate_holds_the_run_and_is_valid(project, monkeypatch):
    out = crate.build(resolve.load("smoke"), project / "crates/smoke")
    graph = {e["@id"]: e for e in json.loads((out / "ro-crate-metadata.json").read_text())["@graph"]}
    run = graph["#run"]
    assert (run["startTime"], run["endTime"]) == ("2001-09-09T01:46:40+00:00", "2001-09-09T01:47:40+00:00")
    assert {"@id": "config/smoke.yaml"} in run["object"] and {"@id": "config/chosen.yaml"} in run["object"]
    assert {"@id": "results/agnews/full/seed0/metrics.json"} in run["result"]
    for name, e in graph.items():
        if "File" in e["@type"]:
            assert (out / name).is_file(), name
    _validate(out, monkeypatch)


def _validate(folder: Path, monkeypatch) -> None:
    """No required check of the Workflow Run Crate profile fails."""
    services = pytest.importorskip("rocrate_validator.services", reason="roc-validator is not installed")
    import rdflib.plugins.parsers.jsonld as parser
    import rdflib.plugins.shared.jsonld.context as context
    from rocrate_validator.models import Severity, ValidationSettings
    from rocrate_validator.utils import http

    read = context.source_to_json

    def local(source, *rest, **options):
        return (TERMS, None) if str(source).startswith(CONTEXT) else read(source, *rest, **options)

    class Reply:
        status_code, headers = 200, {"Content-Type": "application/ld+json"}  # noqa: RUF012
        text, content, from_cache = json.dumps(TERMS), json.dumps(TERMS).encode(), True

        def json(self):
            return TERMS

        def raise_for_status(self):
            pass

    for module in (context, parser):
        monkeypatch.setattr(module, "source_to_json", local, raising=False)
    for method in ("get", "head"):
        monkeypatch.setattr(http.HttpRequester, method, lambda self, *a, **k: Reply(), raising=False)
    found = services.validate(
        ValidationSettings(rocrate_uri=str(folder), profile_identifier="workflow-run-crate-0.5",
                           requirement_severity=Severity.REQUIRED)
    )  # fmt: skip
    assert found.passed(), [(i.check.identifier, i.message) for i in found.get_issues()]


def test_a_project_without_a_readme_has_a_crate_without_one(project):
    (project / "README.md").unlink()
    out = crate.build(resolve.load("smoke"), project / "crates/smoke")
    names = {e["@id"] for e in json.loads((out / "ro-crate-metadata.json").read_text())["@graph"]}
    assert "README.md" not in names and "Snakefile" in names and not (out / "README.md").exists()


def test_a_folder_without_the_workflow_is_refused_before_anything_is_written(project):
    (project / "Snakefile").unlink()
    with pytest.raises(ArtifactError, match="not here"):
        crate.build(resolve.load("smoke"), project / "crates/smoke")
    assert not (project / "crates").exists()


def test_a_folder_that_is_there_is_not_touched(project):
    (project / "crates/smoke").mkdir(parents=True)
    with pytest.raises(ArtifactError, match="is there already"):
        crate.build(resolve.load("smoke"), project / "crates/smoke")
    (project / "results/smoke/table.csv").unlink()
    with pytest.raises(ArtifactError, match="no table yet"):
        crate.build(resolve.load("smoke"), project / "crates/other")
    assert not (project / "crates/other").exists()
