"""Every tensor family and every model with every fault: refused before use, named, and fine again when healed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from holdfast.errors import ArtifactError
from holdfast.merge import driver
from holdfast.model import folders, layers
from holdfast.record import artifact, container, tables
from holdfast.train import finetune, neurons
from holdfast.warp import families

MODULES = ("q_proj", "up_proj", "down_proj")
CFG = {"modules": list(MODULES), "rows": 12, "batch_size": 6, "tokens": "all"}
SPEC = {"scores": "importance", "unit": "entry", "threshold": "layer", "freeze_fraction": 0.2}


@pytest.fixture(scope="module")
def made(tokenizer, world, tmp_path_factory):
    """All families of one aligned model, and those of another."""
    from holdfast.world.model import new_model

    top = tmp_path_factory.mktemp("families")
    tables.write(world.safety(16, 4), top / "safety.parquet", "safety")
    for seed, name in enumerate(("mine", "other")):
        folder = top / name
        model = new_model(
            tokenizer, hidden_size=32, intermediate_size=48, layers=2, heads=4, kv_heads=2, max_positions=256, seed=seed
        )
        for role in ("base", "aligned", "finetuned"):
            folders.save(model, tokenizer, folder / role, header={"role": role})
        aligned, safety = folder / "aligned/model.safetensors", top / "safety.parquet"
        families.build_gram(aligned, safety, CFG, folder / "gram", str)
        families.build_basis(folder / "gram", folder / "basis", str)
        families.build_importance(aligned, safety, folder / "basis", CFG, folder / "importance", str)
        families.build_mask(folder / "importance", SPEC, 0, folder / "mask")
        counts = {"on": "safety", "fraction": 0.2, "samples": 6}
        neurons.build_counts(aligned, safety, counts, folder / "neurons", str)
    return top


@pytest.fixture
def mine(made, tmp_path):
    shutil.copytree(made / "mine", tmp_path / "mine")
    shutil.copy(made / "safety.parquet", tmp_path)
    return tmp_path / "mine"


def use(folder, family):
    """What reads this family in the DAG."""
    aligned, safety = folder / "aligned/model.safetensors", folder.parent / "safety.parquet"
    if family == "gram":
        families.build_output_basis(aligned, folder / "gram", CFG, folder / "out")
    elif family == "basis":
        families.build_importance(aligned, safety, folder / "basis", CFG, folder / "out", str)
    elif family == "importance":
        families.build_mask(folder / "importance", SPEC, 0, folder / "out")
    elif family == "neurons":
        neurons.build_mask(folder / "neurons", None, {"frequency": 0.9}, folder / "out")
    elif family == "mask":
        model, _ = folders.load(folder / "aligned")
        paths = {"basis": folder / "basis", "mask": folder / "mask"}
        finetune.needed(paths, layers.resolve(model, MODULES), container.identity(aligned))
    elif family == "aligned":
        families.build_gram(aligned, safety, CFG, folder / "out", str)
    else:
        checkpoints = {role: folder / role for role in ("finetuned", "aligned", "base")}
        cfg = {"method": "resta", "settings": {"vector": "base"}, "seed": 0}
        driver.run(checkpoints=checkpoints, cfg=cfg, folder=folder / "out", record_file=folder / "out.json")


def place(folder, family):
    return folder / family / "model.safetensors" if family in ("aligned", "finetuned") else folder / family


def flip(path, **_):
    content = bytearray(path.read_bytes())
    content[-3] ^= 4  # one bit of the last number
    path.write_bytes(content)


def truncate(path, **_):
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])


def empty(path, **_):
    path.write_bytes(b"")


def header(path, **_):
    content = path.read_bytes()
    path.write_bytes(content[:8] + content[8:].replace(b'"dtype"', b'"dtipe"', 1))


def retype(path, **_):
    """The same numbers as float16, sealed anew: as another program would write them."""
    stamp = json.loads(container.raw_header(path)[0]["__metadata__"]["holdfast"])
    tensors = {k: v.astype(np.float16) for k, v in load_file(path).items()}
    save_file(tensors, path, metadata={"holdfast": json.dumps(stamp | {container.SEAL: container.UNSEALED})})
    container.seal(path)


def relabel(path, **_):
    """Another word in the header, of the same length."""
    content = path.read_bytes()
    old = next(w for w in (b"q_proj", b"attention_input", b'role\\": ', b"mlp_in") if w in content)
    path.write_bytes(content.replace(old, old[::-1], 1))


def of_another_model(path, *, others, **_):
    shutil.copy(others, path)


def of_another_family(path, *, folder, family, **_):
    shutil.copy(folder / ("mask" if family != "mask" else "basis"), path)


FILES = ("gram", "basis", "importance", "mask", "neurons")
FAULTS = (flip, truncate, empty, header, relabel, retype, of_another_family)
CASES = [(f, fault) for f in FILES for fault in FAULTS] + [
    *((f, of_another_model) for f in ("gram", "basis", "mask")),
    *((f, fault) for f in ("aligned", "finetuned") for fault in (flip, truncate, empty, header, relabel)),
]


@pytest.mark.parametrize(("family", "fault"), CASES, ids=lambda x: x if isinstance(x, str) else x.__name__)
def test_a_fault_is_refused_and_a_healed_file_works(family, fault, made, mine):
    path = place(mine, family)
    good = path.read_bytes()
    fault(path, others=place(made / "other", family), folder=mine, family=family)
    assert path.read_bytes() != good
    with pytest.raises(ArtifactError) as error:
        use(mine, family)
    block = error.value.block()
    assert str(path.parent) in block and path.name in block and "do:" in block, block
    assert not (mine / "out").is_file() and not list(mine.glob("out*/model.safetensors"))
    path.write_bytes(good)
    use(mine, family)


def test_a_model_in_the_place_of_another_role_is_refused(mine):
    shutil.copy(mine / "base/model.safetensors", mine / "aligned/model.safetensors")
    with pytest.raises(ArtifactError, match="role base"):
        use(mine, "aligned")


def test_a_file_of_another_study_or_name_is_refused(tokenizer, model, tmp_path, monkeypatch):
    """Models, bases, masks: whole files of the right kind, made for another place below work/."""
    monkeypatch.chdir(tmp_path)
    cells = [
        Path("work", study, "crafts", arm, "seed0") for study, arm in (("a", "full"), ("a", "warp"), ("b", "full"))
    ]
    for cell in cells:
        folders.save(model, tokenizer, cell, header={"role": "finetuned"})
    masks = [
        Path("work", study, "masks", f"{name}.safetensors") for study, name in (("a", "x"), ("a", "y"), ("b", "x"))
    ]
    for path in masks:
        artifact.write(path, {"t": np.zeros(3, dtype=np.uint8)}, family="mask", header={})
    for use, files in (
        (lambda p: folders.load(p.parent, role="finetuned"), [c / "model.safetensors" for c in cells]),
        (lambda p: artifact.read(p, family="mask"), masks),
    ):
        good = files[0].read_bytes()
        use(files[0])
        for other in files[1:]:
            shutil.copy(other, files[0])
            with pytest.raises(ArtifactError, match="made for another place") as error:
                use(files[0])
            assert str(other) in error.value.found and str(files[0]) in error.value.expected
        files[0].write_bytes(good)
        use(files[0])
    elsewhere = tmp_path / "taken/along"  # as the model another study starts from
    shutil.copytree(cells[0], elsewhere)
    folders.load(elsewhere)


def test_the_repair_names_the_study():
    assert container.again("work/mine/basis/safety.safetensors") == (
        "snakemake --config study=mine -- work/mine/basis/safety.safetensors"
    )
    assert container.again("m.safetensors") == "snakemake m.safetensors"


def test_a_mask_on_another_basis_and_a_gram_matrix_of_another_model_are_refused(mine, made):
    model, _ = folders.load(mine / "aligned")
    targets, aligned = layers.resolve(model, MODULES), container.identity(mine / "aligned/model.safetensors")
    paths = {"basis": mine / "basis", "mask": mine / "mask"}
    assert {*finetune.needed(paths, targets, aligned)} == {"basis", "mask"}
    tensors, header = load_file(mine / "basis"), artifact.header(mine / "basis", family="basis")
    artifact.write(mine / "basis", {k: -v for k, v in tensors.items()}, family="basis", header=header)
    with pytest.raises(ArtifactError, match="basis_file differs"):
        finetune.needed(paths, targets, aligned)
    with pytest.raises(ArtifactError, match="aligned differs"):
        finetune.needed({"gram": made / "other/gram"}, targets, aligned)
