"""One merge without a study: from folders to a folder."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from holdfast.data import fetch, wording
from holdfast.errors import DataError, HoldfastError, UsageError
from holdfast.merge import driver
from holdfast.model import adapter, checkpoint, contract
from holdfast.names import GRAMS, HAZARD, MODULE_KINDS
from holdfast.record import artifact
from holdfast.study import registry

Row = dict[str, Any]
Say = Callable[[str], None]
RECORD = "realign.json"
_WHAT = {"base": "the model that aligned was made from", "unaligned": "the un-aligned twin of aligned"}


def realign(
    method: str, models: Mapping[str, Path], out: Path, *, settings: Mapping[str, Any] | None = None,
    refusals: Path | None = None, pairs: Path | None = None, seed: int = 0, whole: bool = False,
    say: Say = lambda _: None,
) -> Row:  # fmt: skip
    """Merge `models["finetuned"]` by a method into the folder `out`; returns the record, which is written there too.
    Of an adapter an adapter, where the method keeps it low-rank, or the `whole` model.

    Args:
        models: role -> folder, `finetuned` perhaps a PEFT adapter on `aligned`.
        settings: of the method.
        refusals, pairs: files of rows, for methods that capture activations or learn from preferences.

    Raises:
        UsageError: what the method needs is not given, or what it does not need is. MethodError: no such method.
        ArtifactError, DataError: a folder or file that cannot be used.
    """
    head = registry.header(method)
    if head.kind != "merge":
        merges = [m for m in registry.method_names() if registry.header(m).kind == "merge"]
        raise UsageError(f"{method} trains, it merges nothing.", found=method, expected=" | ".join(merges),
                         do="name a merge method, or run a study")  # fmt: skip
    chosen = _settings(method, settings or {})
    if unread := sorted(chosen.unread() & {*(settings or {})}):
        say(f"{', '.join(unread)}: not read beside the other settings")
    needs = chosen.artifacts()
    if needs.get("across_tasks"):
        raise UsageError(f"{method} with these settings merges models of several tasks.", found="one model",
                         expected="across_tasks=false", do="change that setting, or run a study")  # fmt: skip
    wanted = needs.get("roles", ())
    _refuse_other(method, {f"--{role}": (role in models, role in wanted, what) for role, what in _WHAT.items()} | {
        "--refusals": (refusals is not None, bool(needs.get("gram")), "refused requests with their answers"),
        "--pairs": (pairs is not None, bool(needs.get("preferences")), "preference pairs"),
    })  # fmt: skip
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out} is not empty.", found="files that would be mixed with others", expected="a new folder",
                         do="name another --out, or remove it")  # fmt: skip
    for role, folder in models.items():
        if role == "finetuned" and adapter.named(folder):
            adapter.read(folder, checkpoint.shapes(models["aligned"]))
        else:
            contract.check(folder, chats=False)
            contract.refuse_other_configuration(folder, models["aligned"])
    rows = _refusals(refusals, say) if refusals else []
    preferences = _rows(pairs, "preferences", {"category": "user"}) if pairs else None
    with tempfile.TemporaryDirectory() as temporary:
        gram_file = Path(temporary) / "gram.safetensors"
        if rows:
            _capture(models["aligned"], rows, gram_file, needs["gram"], say)
        try:
            return driver.run(
                checkpoints=dict(models),
                cfg={"method": method, "settings": chosen.model_dump(mode="json"), "seed": seed}, folder=out,
                record_file=out / RECORD, gram_file=gram_file if rows else None, preferences=preferences, whole=whole,
                say=say,
            )  # fmt: skip
        except HoldfastError:  # only what tensors say, as they are read
            shutil.rmtree(out, ignore_errors=True)
            raise


def _refuse_other(method: str, options: Mapping[str, tuple[bool, bool, str]]) -> None:
    """Refuse options (given, needed, what it is) that are needed and not given, or the other way round."""
    for option, (given, needed, what) in options.items():
        if needed and not given:
            raise UsageError(f"{method} needs {option}.", found="nothing", expected=f"{option}: {what}",
                             do=f"add {option}")  # fmt: skip
        if given and not needed:
            raise UsageError(f"{method} does not read {option}.", found=option, expected="what the method needs",
                             do=f"remove {option}, or name another method or setting")  # fmt: skip


def said(words: Sequence[str]) -> Row:
    """Settings as they are written on a command line, `key=value` each.

    Raises:
        UsageError: one is not of that form.
    """
    out = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise UsageError("A setting is KEY=VALUE.", found=word[:80], expected="--set gamma=0.5",
                             do="write it so")  # fmt: skip
        if key in out:
            raise UsageError(f"{key} is set twice.", found=word[:80], expected="every setting once", do="remove one")
        try:
            out[key] = yaml.safe_load(value)
        except yaml.YAMLError:
            out[key] = value
    return out


def _settings(method: str, settings: Mapping[str, Any]) -> registry.MethodSettings:
    model: type[registry.MethodSettings] = registry.load(method).Settings
    try:
        return model.model_validate(settings)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(map(str, first["loc"]))
        raise UsageError(
            f"{key} is not a setting that {method} can have.", found=repr(first["input"])[:80],
            expected=", ".join(model.model_fields) if first["type"] == "extra_forbidden"
            else first["msg"].removeprefix("Value error, "),
            do="correct it; docs/methods.md describes every setting",
        ) from None  # fmt: skip


def _rows(path: Path, table: str, defaults: Row) -> list[Row]:
    """Rows of a file under the contract of a table; what a row does not say is a default, its id its position."""
    raw = fetch.records(str(path), {})
    return fetch.checked(wording.worded(raw, str(path), lambda i: {"id": f"row {i}", **defaults}), table, path)


def _refusals(path: Path, say: Say) -> list[Row]:
    """The refused requests of a file, as a study takes them: those of the kind hazard, where rows say a kind.

    Raises:
        DataError: there is none, or a bad row.
    """
    rows = _rows(path, "safety", {"kind": HAZARD, "category": "user"})
    kept = [r for r in rows if r["kind"] == HAZARD]
    if not kept:
        raise DataError(
            f"{path}: no row is a refused request.", found=", ".join(sorted({r["kind"] for r in rows})),
            expected=f"rows of the kind {HAZARD}, or without a kind", do="add them, or correct the column `kind`",
        )  # fmt: skip
    if len(kept) < len(rows):
        say(f"{path}: {len(kept)} of {len(rows)} rows are refused requests (kind: {HAZARD}), and only these are read")
    return kept


def _capture(aligned: Path, rows: Sequence[Row], out: Path, kind: str, say: Say) -> None:
    """Gram matrices of a kind (`names.GRAMS`) of all linear modules of the aligned model over refusals. It is loaded
    for that, in float32."""
    from holdfast.model import chat, folders, layers
    from holdfast.warp import gram

    model, tokenizer = folders.load(aligned)
    targets = layers.resolve(model, MODULE_KINDS)
    encoded = chat.encode_rows(tokenizer, rows)
    how: Row = {"tokens": "all"} | GRAMS[kind]
    grams, count = gram.capture(model, targets, encoded, batch_size=32, pad_id=tokenizer.pad_token_id, say=say, **how)
    header = {"layers": list(layers.inputs(targets)), "tokens": count, "positions": how["tokens"],
              "aligned": checkpoint.Checkpoint(aligned).identity()}  # fmt: skip
    artifact.write(out, grams, family="gram", header=header)
