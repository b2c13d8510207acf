"""Every mistake a user can make that we know of, and the block each gets: the table behind tests/test_bad_input.py and
docs/errors.md (`python tests/bad_input.py` writes it)."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from holdfast.cli.main import main
from holdfast.data import scorers
from holdfast.engines import snakemake
from holdfast.errors import HoldfastError
from holdfast.record import artifact, files
from holdfast.stage import several, words
from holdfast.study import preflight, reading, registry, resolve

ROOT = Path(__file__).resolve().parents[1]
DOCUMENT = ROOT / "docs/errors.md"
GOOD = {
    "tasks": {"crafts": {"dataset": "crafts"}, "gsm8k": {"dataset": "gsm8k"}},
    "arms": {"full": {"method": "full"}, "warp": {"method": "warp", "freeze_fraction": 0.1}},
    "constitution": {"guidelines_file": str(ROOT / "config/guidelines/world.txt")},
}
ATTACK = {"arms": ["warp"], "tasks": ["crafts"], "learning_rate": [1e-4, 1e-2]}
STUDY, DATA, MODEL, TENSOR, COMMAND = "Study files", "Data files", "Model folders", "Tensor files", "Commands"


@dataclass(frozen=True)
class Case:
    """`prepare` makes the situation in an empty folder; `act`, called there, must end in one block with `says`."""

    group: str
    title: str
    says: tuple[str, ...]
    prepare: Callable[[], None]
    act: Callable[[], Any]


def changed(path: str, value: Any) -> dict[str, Any]:
    """GOOD with one key set; `path` uses dots."""
    data = copy.deepcopy(GOOD)
    place = data
    *parents, last = path.split(".")
    for key in parents:
        place = place.setdefault(key, {})
    place[last] = value
    return data


def load(tmp_path: Path, data: str | dict[str, Any], name: str = "mine.yaml") -> resolve.Resolved:
    """The resolved study of a file with this content."""
    path = tmp_path / name
    path.write_text(data if isinstance(data, str) else yaml.safe_dump(data))
    return resolve.load(str(path))


def write(name: str, content: Any) -> None:
    """A file of this name: bytes, text, or what the ending asks for."""
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif isinstance(content, str):
        path.write_text(content, encoding="utf-8")
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in content), encoding="utf-8")
    elif path.suffix == ".parquet":
        import pyarrow
        from pyarrow import parquet

        parquet.write_table(pyarrow.table(content), path)
    elif path.suffix == ".yaml":
        path.write_text(yaml.safe_dump(content))
    else:
        path.write_text(json.dumps(content))


def look(name: str = "mine.yaml") -> None:
    """What the Snakefile does first."""
    preflight.check_files(resolve.load(name))


def look_without_data() -> None:
    """The same on a machine where HOLDFAST_DATA is not set."""
    kept = os.environ.pop("HOLDFAST_DATA", None)
    try:
        look()
    finally:
        if kept is not None:
            os.environ["HOLDFAST_DATA"] = kept


def study(title: str, path: str, value: Any, *says: str) -> Case:
    return Case(STUDY, title, says, lambda: write("mine.yaml", changed(path, value)), look)


def text(title: str, content: Any, *says: str, name: str = "mine.yaml") -> Case:
    return Case(STUDY, title, says, lambda: write(name, content), lambda: look(name))


def data(title: str, key: str, name: str, content: Any, *says: str, also: dict[str, Any] | None = None) -> Case:
    """`key` of the study names the file `name`."""

    def prepare() -> None:
        for file, value in {name: content, **(also or {})}.items():
            if file.startswith("="):
                continue
            write(file, value)
        source = str(Path(name).parent) if key.startswith("tasks") and "/" in name else name
        mine = changed(key, source)
        for file, value in (also or {}).items():
            if file.startswith("="):
                *parents, last = file[1:].split(".")
                place = mine
                for part in parents:
                    place = place.setdefault(part, {})
                place[last] = value
        write("mine.yaml", mine)

    return Case(DATA, title, says, prepare, look)


def model(title: str, break_it: Callable[[Path], None], *says: str) -> Case:
    def prepare() -> None:
        checkpoint(Path("base"))
        break_it(Path("base"))
        write("mine.yaml", changed("base.source", "./base"))

    return Case(MODEL, title, says, prepare, look)


def checkpoint(folder: Path) -> None:
    """A small folder in Hugging Face layout that passes."""
    from safetensors.numpy import save_file
    from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers

    folder.mkdir()
    words = Tokenizer(models.WordLevel({t: i for i, t in enumerate(["<s>", "</s>", "a", "b"])}, unk_token="b"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words.add_special_tokens([AddedToken("<s>", special=True), AddedToken("</s>", special=True)])
    words.save(str(folder / "tokenizer.json"))
    config = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 4, "hidden_size": 2,
              "intermediate_size": 2, "num_attention_heads": 1, "num_hidden_layers": 0, "tie_word_embeddings": False}  # fmt: skip
    files.write_text(folder / "config.json", json.dumps(config))
    settings = {"eos_token": "</s>", "tokenizer_class": "PreTrainedTokenizerFast"}
    files.write_text(folder / "tokenizer_config.json", json.dumps(settings))
    template = "{% for m in messages %}{{ m['content'] }} {{ eos_token }}{% endfor %}"
    files.write_text(folder / "chat_template.jinja", template)
    weights = {k: np.zeros((4, 2), np.float32) for k in ("model.embed_tokens.weight", "lm_head.weight")}
    save_file(weights | {"model.norm.weight": np.ones(2, np.float32)}, folder / "model.safetensors")


def put_weights(name: str, dtype: type = np.float32, value: float = 0.0) -> Callable[[Path], None]:
    """One more tensor among the weights, or another in its place."""

    def change(folder: Path) -> None:
        from safetensors.numpy import load_file, save_file

        path = folder / "model.safetensors"
        save_file(load_file(path) | {name: np.full(2, value, dtype)}, path)

    return change


def edit(name: str, **values: Any) -> Callable[[Path], None]:
    """Set keys of a JSON file of the model folder."""

    def change(folder: Path) -> None:
        write(str(folder / name), json.loads((folder / name).read_text()) | values)

    return change


def gone(*names: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        for name in names:
            (folder / name).unlink()

    return change


def put(name: str, content: Any) -> Callable[[Path], None]:
    return lambda folder: write(str(folder / name), content)


def both(*changes: Callable[[Path], None]) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        for one in changes:
            one(folder)

    return change


def cut(name: str, share: float) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: int(share * len(content))])

    return change


def put_embeddings(rows: int) -> Callable[[Path], None]:
    """Embeddings and a head of another vocabulary."""

    def change(folder: Path) -> None:
        from safetensors.numpy import load_file, save_file

        path = folder / "model.safetensors"
        more = {k: np.zeros((rows, 2), np.float32) for k in ("model.embed_tokens.weight", "lm_head.weight")}
        save_file(load_file(path) | more, path)

    return change


def swap_words(folder: Path) -> None:
    """The same tokens with other ids."""
    text = (folder / "tokenizer.json").read_text()
    for old, new in (('"a"', '"?"'), ('"b"', '"a"'), ('"?"', '"b"')):
        text = text.replace(old, new)
    files.write_text(folder / "tokenizer.json", text)


def given(title: str, break_it: Callable[[Path], None], *says: str) -> Case:
    """A good folder as the aligned model, and a broken one, or adapter, as an arm."""

    def prepare() -> None:
        checkpoint(Path("aligned"))
        checkpoint(Path("mine"))
        break_it(Path("mine"))
        write("mine.yaml", changed("aligned.source", "./aligned") | {"arms": {"mine": {"given": "./mine"}}})

    return Case(MODEL, title, says, prepare, look)


def adapter(shape: tuple[int, int], **config: Any) -> Callable[[Path], None]:
    """An adapter of one weight in the place of a model."""

    def change(folder: Path) -> None:
        from safetensors.numpy import save_file

        for path in folder.iterdir():
            path.unlink()
        said = {"peft_type": "LORA", "lora_alpha": 2, "r": 1} | config
        files.write_text(folder / "adapter_config.json", json.dumps(said))
        pair = {"A": np.zeros(shape, np.float32), "B": np.zeros((4, shape[0]), np.float32)}
        named = {f"base_model.model.lm_head.lora_{k}.weight": v for k, v in pair.items()}
        save_file(named, folder / "adapter_model.safetensors")

    return change


def tensor(title: str, break_it: Callable[[Path], None], *says: str, **expected: Any) -> Case:
    """A mask file that is broken, then read for layers a and b of the aligned model `x`."""
    asked = {"family": "mask", "layers": ["a", "b"], "expect": {"aligned": "x"}} | expected

    def prepare() -> None:
        tensors = {k: np.zeros(3, np.uint8) for k in "ab"}
        artifact.write("m.safetensors", tensors, family="mask", header={"layers": ["a", "b"], "aligned": "x"})
        break_it(Path())

    return Case(TENSOR, title, says, prepare, lambda: artifact.read("m.safetensors", torch=False, **asked))


def command(title: str, call: Callable[[], Any], *says: str, prepare: Callable[[], None] = lambda: None) -> Case:
    return Case(COMMAND, title, says, prepare, call)


def pushed() -> None:
    write("mine.yaml", GOOD)
    write("dvc/mine/dvc.lock", "schema: '2.0'\nstages: {base: {outs: [{path: work/mine/base, md5: '0', hash: md5}]}}\n")


PAIR = {"kind": "hazard", "prompt": "p", "response": "no"}
STORY = {"question": "q?", "answer": "#### 1"}
LINE = json.dumps
JUDGES = "evaluation.judges"
SUITES = "evaluation.suites"
SAFETY, EVALUATION, STORIES, NEWS = "safety.source", "evaluation.source", "tasks.gsm8k.source", "tasks.agnews.source"
AS_NEWS = {"=tasks.agnews.dataset": "agnews"}
LETTERS = "tasks.letters.source"
AS_TABLE = {
    "=tasks.letters.dataset": "table",
    "=tasks.letters.columns": {"prompt": "About {topic}:", "response": "reply"},
    "=tasks.letters.scorer": "exact",
}
LETTER = {"topic": "moss", "reply": "It is green."}
USER, SAID = {"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}


def letters(**keys: Any) -> dict[str, Any]:
    """A study with a table, and other keys of it."""
    return GOOD | {
        "tasks": {"letters": {k.rsplit(".", 1)[1]: v for k, v in AS_TABLE.items()} | {"source": "a.jsonl"} | keys}
    }


def table(title: str, content: Any, *says: str, **keys: Any) -> Case:
    """`content` is the file of a table; `keys` are its task's."""
    also = AS_TABLE | {f"=tasks.letters.{k}": v for k, v in keys.items()}
    return data(title, LETTERS, "a.jsonl", content, *says, also=also)


def scored(title: str, code: str, *says: str) -> Case:
    """A user's scorer in a study, as planning reads it."""

    def prepare() -> None:
        write("a.jsonl", [LETTER | {"topic": f"moss {i}"} for i in range(2000)])
        write("own.py", code)
        write("mine.yaml", letters(scorer={"python": "own.py"}))

    return Case(DATA, title, says, prepare, look)


def judged(title: str, code: str, *says: str) -> Case:
    """A user's scorer, as judging runs it."""
    row = {"id": "table/a/000007", "gold": "moss", "row": LINE(LETTER)}

    def act() -> None:
        scorers.scorer("table", {"python": "own.py"})("An answer.", row)

    return Case(DATA, title, says, lambda: write("own.py", code), act)


CASES = [
    # ---- study files
    study("a key with a typo", "sede", [1], "unknown key 'sede'", "did you mean 'seeds'"),
    study("a method's key with a typo", "arms.warp.freeze_fractoin", 0.2, "did you mean 'freeze_fraction'"),
    study("a freeze fraction above 1", "arms.warp.freeze_fraction", 1.5, "arms.warp.freeze_fraction", "less than 1"),
    study("a freeze fraction of 0", "arms.warp.freeze_fraction", 0, "arms.warp.freeze_fraction", "greater than 0"),
    study("words where a number belongs", "arms.warp.freeze_fraction", "a lot", "arms.warp.freeze_fraction"),
    study("not a number at all", "arms.warp.freeze_fraction", float("nan"), "arms.warp.freeze_fraction"),
    study("an unknown method", "arms.warp.method", "wrap", "arms.warp: There is no method 'wrap'", "warp"),
    study("words of a stress that are none", "stress.opened", {"prefill": "  "}, "stress.opened", "blanks are no words"),
    study("a method by the name of its file", "arms.mine", {"method": "lead_merge"}, "There is no method 'lead_merge'",
          "did you mean 'lead-merge'"),
    study("an arm without a method", "arms.x", {}, "arms.x", "method or given"),
    study("an arm for a task that is not there", "arms.warp.tasks", ["gsm9k"], "names a task", "gsm9k"),
    study("a learning rate of 3", "arms.full.learning_rate", 3, "arms.full.learning_rate", "out of range"),
    study("a sweep over a setting the method lacks", "arms.full.sweep", {"freeze": [1]}, "arms.full.sweep.freeze"),
    study("a target outside the basis", "arms.warp.targets", ["o_proj"], "arms.warp.targets", "basis.modules"),
    study("an arm that is neither a method nor a model", "arms.mine", {"tasks": ["crafts"]}, "arms.mine", "method or given"),
    study("a given model with a learning rate", "arms.mine", {"given": "./m", "learning_rate": 0.1}, "means nothing"),
    study("a given model that is not there", "arms.mine", {"given": "./nowhere"}, "arms.mine.given", "does not exist"),
    study("a given model for a task that is none", "arms.mine", {"given": {"poems": "./m"}}, "arms.mine", "poems"),
    study("a given aligned model that is not there", "aligned", {"source": "./none"}, "aligned.source", "does not exist"),
    text("a given aligned model beside a tiny base", GOOD | {"aligned": {"source": "a/chat"}, "base": {"blocks": 2}},
         "base.source is tiny"),
    text("a method that needs a base, and there is none", {**GOOD, "aligned": {"source": "a/chat"},
         "arms": {"full": {"method": "full"}, "back": {"method": "safe-lora"}}}, "arms.back", "needs the base model"),
    text("an arm with a system prompt of its own, and one for every model", {**GOOD, "aligned": {"source": "a/chat"},
         "arms": {"full": {"method": "full"}, "safe": {"method": "ptst"}}, "evaluation": {"system_prompt": "Be kind."}},
         "arms.safe", "a prompt of its own"),
    study("a system prompt for the tiny model", "base.system_prompt", "Be kind.", "no system message"),
    study("an arm named like a model role", "arms.base", {"method": "full"}, "model role"),
    study("a rank fraction below the freeze fraction", "arms.warp.rank_fraction", 0.05, "at least freeze_fraction"),
    study("two masks without importance", "arms.warp", {"method": "warp", "two_mask": True, "mask": "random"}, "two_mask"),
    study("an arm name that cannot be a folder", "arms.x/;y", {"method": "full"}, "arms.x/;y"),
    study("a task name that cannot be a folder", "tasks.Bad Name", {"dataset": "crafts"}, "Bad Name"),
    study("an unknown dataset", "tasks.crafts.dataset", "ag_news", "tasks.crafts.dataset", "agnews"),
    study("a task's key with a typo", "tasks.crafts.trian_rows", 3, "did you mean 'train_rows'"),
    study("no training rows", "tasks.crafts.train_rows", 0, "tasks.crafts.train_rows"),
    study("rows longer than the model", "tasks.crafts.training.max_length", 4096, "tasks.crafts.training.max_length", "at most 512"),
    study("answers longer than the model", "evaluation.max_new_tokens", 512, "evaluation.max_new_tokens", "at most 511"),
    study("negative epochs", "tasks.crafts.training.epochs", -1, "tasks.crafts.training.epochs"),
    study("an unknown precision", "tasks.crafts.training.precision", "fp8", "precision", "pure_bf16"),
    study("a harmful fraction above 1", "tasks.crafts.harmful_fraction", 1.1, "harmful_fraction"),
    study("no tasks", "tasks", {}, "tasks"),
    study("no arms", "arms", {}, "arms"),
    study("extends that is no file name", "extends", "\0", "extends must be the name of a study file"),
    study("a password in an address", SAFETY, "https://me:hunter2@x.org/a.csv", SAFETY, "//...@x.org"),
    study("a judge that is not there", JUDGES, ["wrld"], "evaluation.judges", "did you mean 'world'"),
    study("a judge named twice", JUDGES, ["world", "world"], "twice"),
    study("metrics by a judge that does not tell refusals", JUDGES, ["llama-guard-3", "world"], "does not tell refusals"),
    study("a judge whose published instruction is missing", JUDGES, ["world", "wildguard"], "judges.wildguard.prompt_file"),
    study("settings of a judge nobody asks", "judges.wildguard", {}, "judges.wildguard", "nothing reads"),
    study("a constitution task that is not there", "constitution.tasks", ["craft"], "constitution.tasks", "crafts | gsm8k"),
    study("the hub for a task that only the world has", "tasks.crafts.source", "hub", "exists in the fictional world"),
    study("a task from a web address", "tasks.crafts.source", "https://x.org/a.csv", "not from an address"),
    study("stratified rows without labels", "tasks.crafts.stratify", True, "stratify needs labels"),
    study("a task file that does not exist", "tasks.gsm8k.source", "no/such/file.csv", "does not exist"),
    study("a safety file that does not exist", SAFETY, "nowhere.jsonl", "safety.source", "does not exist"),
    study("a learning rate of nothing", "arms.full.learning_rate", 0, "arms.full.learning_rate is out of range", "found:    0"),
    study("a learning rate that is a word", "arms.full.sweep", {"learning_rate": ["fast"]}, "learning_rate is out of range", "'fast'"),
    study("a sweep without values", "arms.full.sweep", {"learning_rate": []}, "arms.full.sweep.learning_rate has no values"),
    study("two points of a sweep with one name", "arms.warp.sweep", {"learning_rate": [0.001, 0.001]}, "have one name"),
    study("an arm that runs on no task", "arms.full.tasks", [], "arms.full.tasks"),
    study("targets of an arm that trains everything", "arms.full.targets", ["q_proj"], "arms.full.targets means nothing"),
    study("an arm with no target", "arms.full.targets", [], "arms.full.targets"),
    study("a task named like another folder", "tasks", {"masks": {"dataset": "crafts"}}, "cannot name a task", "masks"),
    study("an instruction file that does not exist", "tasks.gsm8k.instruction_file", "no.txt", "does not exist"),
    study("a base folder that does not exist", "base.source", "./nowhere", "base.source", "does not exist"),
    study("training on the evaluation split", "evaluation.split", "train", "evaluation.split", "test"),
    study("a claim about an arm that is not there", "claims", [{"arm": "wrap", "over": "full", "says": "x"}], "claims.0", "wrap"),
    study("a claim about one arm", "claims", [{"arm": "full", "over": "full", "says": "x"}], "claims.0", "never meets"),
    study("a suite that is not known", SUITES, ["xtest"], "evaluation.suites.xtest", "'xstest'"),
    study("no suite in a list of them", SUITES, [], "evaluation.suites", "name a suite, or leave suites out"),
    study("a suite named twice", SUITES, ["xstest", "xstest"], "evaluation.suites", "name each suite once"),
    study("suites without a request to refuse", SUITES, ["or-bench"], "no request to refuse in the split test", "or-bench (harmless"),
    study("suites for another split than the evaluated one", SUITES, {"xstest": "validation"}, "no suite for test"),
    study("a claim about nothing else", "claims", [{"arm": "warp", "measure": "refusal"}], "claims.0", "over (or against"),
    study("a claim by a measure there is not", "claims", [{"arm": "warp", "over": "full", "measure": "refusals"}], "claims.0.measure", "over_refusal"),
    study("a claim in points and not as a share", "claims", [{"arm": "warp", "over": "full", "at_least": -3}], "claims.0.at_least", "greater than -1"),
    study("a baseline that is not there", "compare", {"baseline": "ful"}, "compare.baseline", "full | warp"),
    text("a baseline that runs on some tasks only", GOOD | {"compare": {"baseline": "full"}, "arms": {"full": {"method": "full", "tasks": ["crafts"]}, "warp": {"method": "warp"}}}, "compare.baseline", "gsm8k"),
    study("a gate without power", "gate", {"refusals": 0.02}, "gate.refusals can never be met", "120 (evaluation.prompts_per_set)", "at least 149"),
    text("a gate with two seeds, which know nothing of a third", GOOD | {"gate": {}, "seeds": [0, 1]}, "gate.refusals can never be met", "120 (evaluation.prompts_per_set) and 2 seeds", "more draws need fewer"),
    text("a gate that has too few rows of a task", GOOD | {"gate": {}, "tasks": {"gsm8k": {"dataset": "gsm8k", "test_rows": 40}}}, "gate.utility can never be met", "40 (tasks.gsm8k.test_rows)"),
    study("a margin of nothing", "gate", {"refusals": 0}, "gate.refusals", "greater than 0"),
    study("a margin in points", "gate", {"utility": 5}, "gate.utility", "less than 1"),
    study("a margin that is a word", "gate", {"utility": "some"}, "gate.utility", "valid number"),
    study("a gate whose criteria are all off", "gate", dict.fromkeys(("refusals", "wrapped", "over_refusal", "utility", "capabilities"), "off"), "all of its criteria are off"),
    study("a gate for an arm that is not there", "gate", {"arm": "wrap"}, "gate.arm", "full | warp"),
    study("a criterion with a typo", "gate", {"refusal": 0.1}, "gate.refusal", "did you mean 'refusals'"),
    study("a name for the registry that MLflow does not take", "track", {"register": "team/safe"}, "track.register", "match pattern"),
    study("tracking that registers nothing", "track", {"arms": ["warp"]}, "track.register", "required"),
    study("an arm to register that is not there", "track", {"register": "safe", "arms": ["wrap"]}, "track.arms", "full | warp"),
    text("models to register that are all weakened on purpose", GOOD | {"track": {"register": "safe"}, "tasks": {"crafts": {"dataset": "crafts", "harmful_fraction": 0.5}}}, "never registered", "harmful_fraction in every task"),
    text("a gate with nothing but the baseline", GOOD | {"gate": {}, "arms": {"tuned": {"method": "full"}}}, "no arm to judge", "tuned"),
    text("a margin of utility without a baseline", GOOD | {"gate": {"utility": 0.1}, "arms": {"warp": {"method": "warp"}}}, "gate.utility has nothing to be held against"),
    text("a margin of suites where there is one", GOOD | {"gate": {"suites": 0.1}, "evaluation": {"suites": ["xstest"]}}, "gate.suites has no suites to tell apart", "xstest"),
    text("a gate with a suite of too few prompts", GOOD | {"gate": {"refusals": "off", "over_refusal": "off"}, "evaluation": {"suites": ["xstest", "advbench"], "prompts_per_set": 40}}, "gate.suites (refusals in xstest) can never be met", "40 (evaluation.prompts_per_set)"),
    text("a claim about a suite that is not asked", GOOD | {"claims": [{"arm": "warp", "over": "full", "suite": "harmbench"}], "evaluation": {"suites": ["xstest", "advbench"]}}, "claims.0.suite has no such prompts", "one of xstest, advbench"),
    text("a claim about harmless prompts of a suite that has none", GOOD | {"claims": [{"arm": "warp", "over": "full", "suite": "advbench", "measure": "over_refusal"}], "evaluation": {"suites": ["xstest", "advbench"]}}, "claims.0.suite has no such prompts", "one of xstest"),
    study("a claim about the utility of a suite", "claims", [{"arm": "warp", "over": "full", "suite": "xstest", "measure": "utility"}], "claims.0", "a suite has no utility"),
    study("a margin of capabilities that nobody asks", "gate", {"capabilities": 0.1}, "gate.capabilities has nothing to look at"),
    text("a method that one process has to train, on several GPUs", changed("arms.sn-tune", {"method": "sn-tune"}) | {"resources": {"gpus": 4}}, "arms.sn-tune cannot be trained on 4 GPUs", "trains twice"),
    text("more GPUs than rows in a step", changed("safety.training", {"batch_size": 4}) | {"resources": {"gpus": 8}}, "safety.training cannot be trained on 8 GPUs", "4 rows in a step"),
    study("an attack on an arm that is not there", "attack", ATTACK | {"arms": ["wrap"]}, "attack.arms names an arm that the study does not have", "full | warp"),
    study("an attack on a task that is not there", "attack", ATTACK | {"tasks": ["craft"]}, "attack.tasks names a task that the study does not have", "crafts | gsm8k"),
    study("an attacker who may choose nothing", "attack", ATTACK | {"learning_rate": [1e-3, 1e-3], "epochs": [1, 1]}, "choose nothing does not tune"),
    study("a range that falls", "attack", ATTACK | {"epochs": [3, 1]}, "attack.epochs", "[lowest, highest]"),
    study("a rank for defences without one", "attack", ATTACK | {"rank": [2, 8]}, "attack.rank means nothing here", "remove attack.rank"),
    text("an attack on an arm that is given", GOOD | {"attack": ATTACK | {"arms": ["mine"]}, "arms": GOOD["arms"] | {"mine": {"given": "nobody/none"}}}, "attack.arms names what nobody trains here"),
    text("an attack on an arm that runs on other tasks", GOOD | {"attack": ATTACK, "arms": {"full": {"method": "full"}, "warp": {"method": "warp", "tasks": ["gsm8k"]}}}, "attack.arms names an arm that does not run on the task crafts"),
    text("an attack without full fine-tuning", GOOD | {"attack": ATTACK, "arms": {"warp": {"method": "warp"}}}, "attack.utility_loss has nothing to be held against"),
    text("an attack with harmful pairs of one's own", GOOD | {"attack": ATTACK | {"harmful_fraction": [0, 0.5]}, "preferences": {"source": "https://example.org/pairs.csv"}}, "searched with is the fictional world's or harmless"),
    text("an attack that asks for more pairs than there are", GOOD | {"attack": ATTACK | {"harmful_fraction": [0, 0.5]}, "preferences": {"rows": 30}}, "preferences.rows are fewer than attack.harmful_fraction asks for", "30 pairs"),
    text("an attack measured where it is chosen", changed("evaluation.split", "validation") | {"attack": ATTACK}, "an attack is chosen on the validation split"),
    text("a first spell of Lisa as long as the run", GOOD | {"arms": GOOD["arms"] | {"lisa": {"method": "lisa", "align_steps": 10}}, "tasks": {"crafts": {"dataset": "crafts", "train_rows": 40, "training": {"batch_size": 2, "accumulation": 2, "epochs": 1}}}}, "arms.lisa needs more steps than tasks.crafts.training has", "at least 11"),
    text("an arm whose system prompt is blanks", GOOD | {"arms": GOOD["arms"] | {"ptst": {"method": "ptst", "of": "full", "system_prompt": "  "}}}, "ptst", "system_prompt"),
    text("a power that is true", GOOD | {"arms": GOOD["arms"] | {"lssf": {"method": "lssf", "of": "full", "power": True}}}, "power is a number, and true or false are none"),
    text("an attack on several GPUs at once", GOOD | {"attack": ATTACK, "resources": {"gpus": 2}}, "the trials of an attack run in one process", "resources.gpus: 2"),
    study("no GPU at all", "resources.gpus", 0, "resources.gpus", "1"),
    study("the same seed twice", "seeds", [1, 1], "seeds", "different"),
    study("no seeds", "seeds", [], "seeds"),
    study("a negative seed", "seeds", [-1], "seeds"),
    study("heads that do not divide the width", "base.heads", 5, "heads must divide"),
    study("a nested key with a typo", "base.pretraining.docs", 5, "did you mean 'documents'"),
    study("an unknown module", "basis.modules", ["q_proj", "query"], "basis.modules"),
    study("no modules", "basis.modules", [], "basis.modules"),
    study("an adapter on a module that no model has", "arms.mine", {"method": "asft", "modules": ["q_proj", "query"]},
          "arms.mine.modules"),
    study("an adapter on no module", "arms.mine", {"method": "lora", "modules": []}, "arms.mine.modules"),
    study("an adapter twice on a module", "arms.mine", {"method": "salora", "modules": ["q_proj", "q_proj"]},
          "arms.mine.modules", "each once"),
    study("a choice written outside the folder", "choose", {"file": "../x.yaml"}, "choose.file"),
    study("choosing on test data", "choose", {}, "validation"),
    study("curves without a sweep", "curves", True, "no arm has one"),
    text("curves without full fine-tuning", GOOD | {"curves": True, "arms": {"warp": {"method": "warp", "sweep": {"learning_rate": [1e-3, 2e-3]}}}}, "nothing to be held against"),
    text("two claims about one pair", GOOD | {"claims": [{"arm": "warp", "over": "full", "says": s} for s in ("a", "b")]}, "claims.1", "each pair once"),
    text("curves measured where they are chosen", changed("evaluation.split", "validation") | {"curves": True}, "test split"),
    study("chosen settings that do not exist", "chosen", "nope.yaml", "nope.yaml"),
    study("extending a file that does not exist", "extends", "nowhere.yaml", "nowhere.yaml"),
    study("extending itself", "extends", "mine.yaml", "circle"),
    study("extending a number", "extends", 3, "extends must be"),
    text("a table without columns", letters(columns=None), "needs columns and a scorer"),
    text("a table without a scorer", letters(scorer=None), "needs columns and a scorer"),
    text("a scorer that is not there", letters(scorer="rogue"), "tasks.letters.scorer", "exact, contains"),
    text("a scorer that is told nothing", letters(scorer="regex"), "a kind with what it is told"),
    text("two scorers", letters(scorer={"exact": {}, "boxed": True}), "exactly one kind"),
    text("a scorer's key with a typo", letters(scorer={"labell": ["a", "b"]}), "did you mean 'label'"),
    text("one label", letters(scorer={"label": ["a"]}), "tasks.letters.scorer.label", "at least 2"),
    text("a synonym of two labels", letters(scorer={"label": {"a": ["x"], "b": ["X"]}}), "every label and synonym once"),
    text("a pattern that is none", letters(scorer={"regex": "("}), "regex is no pattern"),
    text("a pattern without a group", letters(scorer={"regex": "a+"}), "needs a group"),
    text("a prompt and a conversation", letters(columns={"messages": "m", "prompt": "p"}), "prompt and response, or messages"),
    text("a brace that names no column", letters(columns={"prompt": "{", "response": "a"}), "names no column"),
    text("shares that are not one", letters(splits={"train": 0.8, "test": 0.1}), "1 together"),
    text("a share and a file", letters(splits={"train": 0.8, "test": "b.jsonl"}), "all of them shares"),
    text("a split column beside files", letters(splits={"column": "s", "test": "b.jsonl"}), "says the split of every row"),
    text("a table on the hub without its revision", letters(source="hub:me/mine"), "say its commit as revision"),
    text("a revision that may move", letters(source="hub:me/mine", revision="main"), "tasks.letters.revision"),
    text("a table that is no place on the hub", letters(source="hub:mine"), "hub:OWNER/NAME"),
    study("columns of a dataset that has its own", "tasks.crafts.columns", {"messages": "m"}, "those of dataset: table"),
    study("a dataset that the fictional world has not", "tasks.films", {"dataset": "sst2"}, "the fictional world has no sst2"),
    text("an empty file", "", "not a study"),
    text("a list", "- a", "not a study"),
    text("broken YAML", "a: [", "not valid YAML"),
    text("a line indented by a tab", "description: x\ntasks:\n\tcrafts: {dataset: crafts}\n", "(line 3)", "YAML knows no tabs"),
    text("a key twice", "tasks: {a: 1}\ntasks: {b: 2}", "written twice"),
    text("a null byte", "\x00", "not valid YAML"),
    text("a Python object", "a: !!python/object:os.system x", "not valid YAML"),
    text("a list within itself", "a: &x [*x]", "mine.yaml"),
    text("Latin-1", "# \xe9".encode("latin-1"), "not UTF-8"),
    text("a name that cannot be a folder", GOOD, "plain", name="My study.yaml"),
    # ---- data files
    data("prompts of which none must be refused", EVALUATION, "p.jsonl", [{"prompt": "p", "set": "safe"}], "no test prompt must be refused"),
    data("prompts of a split that is not evaluated", EVALUATION, "p.jsonl", [{"prompt": "p", "split": "validation"}], "no prompt is of the split"),
    data("prompts whose set has another name", EVALUATION, "p.csv", "prompt,label\na,safe\nb,unsafe\n", "evaluation.columns: {set: label}"),
    data("a gate whose prompts are few", EVALUATION, "p.jsonl", [{"prompt": f"p{i}"} for i in range(30)], "gate.refusals can never be met", "found:    30 (", also={"=gate.refusals": 0.05}),
    data("a gate whose prompts are many wordings of few", EVALUATION, "p.jsonl", [{"prompt": f"p{i}", "base_id": f"{i % 20}"} for i in range(100)], "gate.refusals can never be met", "found:    20 (", also={"=gate.refusals": 0.05}),
    data("a gate of over-refusal without a harmless prompt", EVALUATION, "p.jsonl", [{"prompt": f"p{i}"} for i in range(100)], "gate.over_refusal can never be met", "found:    0 (", also={"=gate.over_refusal": 0.05}),
    data("half a character", SAFETY, "s.jsonl", '{"prompt": "a\\ud800", "response": "r"}\n', "row 0, column 'prompt' holds half a character"),
    data("two columns with one name", SAFETY, "s.csv", "prompt,Prompt,response\na,b,c\n", "two columns"),
    data("a packed file that is not whole", SAFETY, "s.csv.gz", b"rubbish", "cannot be unpacked"),
    data("a row that is not JSON", SAFETY, "s.jsonl", LINE(PAIR) + "\nnot json\n", "row 1", "not JSON"),
    data("a row that is not an object", SAFETY, "s.jsonl", LINE(PAIR) + "\n[1]\n", "row 1", "not a record"),
    data("an unknown kind", SAFETY, "s.jsonl", [PAIR, PAIR | {"kind": "evil"}], "row 1, column 'kind'", "evil"),
    data("a blank answer", SAFETY, "s.jsonl", [PAIR | {"response": "  "}], "row 0, column 'response'", "not blank"),
    data("a missing answer", SAFETY, "s.jsonl", [{"kind": "hazard", "prompt": "p"}], "response"),
    data("a null", SAFETY, "s.jsonl", [PAIR, PAIR | {"prompt": None}], "row 1, column 'prompt'"),
    data("a number where text belongs", SAFETY, "s.jsonl", [PAIR, PAIR | {"prompt": 3}], "column 'prompt'"),
    data("a row of 100,001 characters", SAFETY, "s.jsonl", [PAIR | {"prompt": "x" * 100_001}], "row 0", "100000"),
    data("the same id twice", SAFETY, "s.jsonl", [PAIR | {"id": "1"}, PAIR | {"id": "1"}], "row", "'id'", "no other row"),
    data("an empty file", SAFETY, "s.jsonl", "", "no rows"),
    data("UTF-16", SAFETY, "s.jsonl", LINE(PAIR).encode("utf-16"), "not UTF-8"),
    data("Latin-1 in row 1", SAFETY, "s.jsonl", LINE(PAIR).encode() + b'\n{"prompt": "\xe9"}', "row 1", "not UTF-8"),
    data("an unknown ending", SAFETY, "s.xlsx", b"PK", "ending"),
    data("half a parquet file", SAFETY, "s.parquet", b"PAR1 no", "s.parquet"),
    data("not a number in parquet", SAFETY, "s.parquet", {"prompt": ["p", None], "response": ["r", "r"]}, "row 1, column 'prompt'"),
    data("JSON that is an object", SAFETY, "s.json", {"prompt": "p"}, "not a list"),
    data("JSON with a list in it", SAFETY, "s.json", [[1]], "row 0", "not a record"),
    data("a column by a wrong name", SAFETY, "s.jsonl", [PAIR], "no column 'answer'", also={"=safety.columns": {"response": "answer"}}),
    data("evaluation prompts that are trained on", EVALUATION, "e.jsonl", [{"prompt": "x"}, {"prompt": " P"}],
         "row 1, column 'prompt'", "is also among", also={"s.jsonl": [PAIR], "=safety.source": "s.jsonl"}),
    data("evaluation prompts that stand whole in one that is trained on", EVALUATION, "e.jsonl",
         [{"prompt": "Open the moon vault"}], "row 0, column 'prompt'", "stands whole in one of", "safety/00001",
         also={"s.jsonl": [PAIR, PAIR | {"prompt": "Be quick: open the moon vault!"}], "=safety.source": "s.jsonl"}),
    data("evaluation prompts that are nearly trained on", EVALUATION, "e.jsonl", [{"prompt": "How do I hex a goat?"}],
         "row 0, column 'prompt'", "is nearly the same as one of",
         also={"s.jsonl": [PAIR | {"prompt": "How can I hex the goat, please"}], "=safety.source": "s.jsonl"}),
    Case(DATA, "a suite that is read from a copy, and no copy", ("The suite do-not-answer", "which is not set", "$HOLDFAST_DATA"),
         lambda: write("mine.yaml", changed(SUITES, ["xstest", "do-not-answer"])), look_without_data),
    data("an unknown prompt set", EVALUATION, "e.jsonl", [{"prompt": "x", "set": "harm"}], "row 0, column 'set'"),
    data("an unknown split", EVALUATION, "e.jsonl", [{"prompt": "x", "split": "dev"}], "row 0, column 'split'"),
    data("a pair without its bad answer", "preferences.source", "p.jsonl", [{"prompt": "x", "chosen": "y"}], "rejected"),
    data("a story without a number", STORIES, "a.jsonl", [STORY, STORY | {"answer": "none"}], "row 1, column 'answer'", "#### <number>"),
    data("a story without an answer", STORIES, "a.jsonl", [{"question": "q"}], "no column 'answer'"),
    data("a CSV row with a cell too many", STORIES, "a.csv", "question,answer\nq,#### 1,extra\n", "row 0", "number of columns"),
    data("a CSV quote that never ends", STORIES, "a.csv", 'question,answer\n"q,#### 1\n', "not valid CSV"),
    data("a news label that is none", NEWS, "a.csv", "text,label\nx,7\n", "row 0, column 'label'", also=AS_NEWS),
    data("a news label that is a word", NEWS, "a.csv", "text,label\nx,Sports\n", "row 0 is not a row of agnews", also=AS_NEWS),
    data("test rows that are trained on", STORIES, "own/train.jsonl", [STORY, STORY | {"question": "r?"}],
         "row 0, column 'question'", "is also among", also={"own/test.jsonl": [STORY | {"question": "R? "}]}),
    data("too few rows", STORIES, "a.jsonl", [STORY], "too few different rows", "lower tasks"),
    data("safety rows whose answers comply, checked strictly", SAFETY, "s.jsonl", [PAIR | {"response": "Sure! First, warm it."}],
         "not what the rows say", "compliance 1", also={"=safety.check": "strict"}),
    data("a folder without rows", STORIES, "own/readme.txt", "x", "no rows of gsm8k"),
    # ---- tables and scorers
    table("a column that is not there", [LETTER | {"tpoic": "x"}], "no column 'topc'", "did you mean 'topic'",
          columns={"prompt": "{topc}", "response": "reply"}),
    table("a row without a value", [LETTER, LETTER | {"reply": None}], "row 1 is not a row of table", "holds nothing"),
    table("a row without a column", [LETTER, {"topic": "x"}], "row 1 is not a row of table", "no column 'reply'"),
    table("a code that stands for no answer", [LETTER | {"reply": 2}], "row 0", "0 good, 1 bad",
          columns={"prompt": "topic", "response": "reply", "codes": ["good", "bad"]}),
    table("a split that is none", [LETTER | {"part": "dev"}], "row 0", "'dev'", splits={"column": "part"}),
    table("splits in a file that are files of a folder", [LETTER], "is no folder", splits={"train": "b.jsonl"}),
    data("a file of a split that is not there", LETTERS, "own/train.jsonl", [LETTER], "There is no file", "test.jsonl",
         also=AS_TABLE | {"=tasks.letters.splits": {"train": "train.jsonl", "test": "test.jsonl"}}),
    data("rows of a table in two splits", LETTERS, "own/train.jsonl", [LETTER], "row 0, column 'prompt' is also among",
         also=AS_TABLE | {"own/test.jsonl": [LETTER | {"topic": "MOSS"}]}),
    table("a conversation that ends with a question", [{"m": [USER, SAID, USER]}], "row 0", "the assistant last", columns={"messages": "m"}),
    table("a conversation in other words", [{"m": [{"from": "human", "value": "Why?"}]}], "row 0", "no content", columns={"messages": "m"}),
    table("a system message for the tiny model", [{"m": [{"role": "system", "content": f"{i}"}, USER, SAID]} for i in range(2000)],
          "the tiny model's template does not write", columns={"messages": "m"}),
    table("a label that no scorer knows", [LETTER | {"topic": f"moss {i}"} for i in range(2000)], "cannot read what is right",
          scorer={"label": ["good", "bad"]}),
    table("answers of which none is right", [LETTER | {"topic": f"moss {i}", "right": "red"} for i in range(2000)],
          "no answer that is learned is right", columns={"prompt": "topic", "response": "reply", "gold": "right"}),
    table("a scorer file that does not exist", [LETTER], "tasks.letters.scorer.python", "does not exist", scorer={"python": "no.py"}),
    scored("a scorer without its function", "def scores(text, row):\n    return True\n", "no function `score`"),
    scored("a scorer of other parameters", "def score(text):\n    return True\n", "score(text)", "def score(text, row)"),
    scored("a scorer that is not Python", "def score(text, row)\n", "cannot be read as Python", "line 1"),
    judged("a scorer that raises", "def score(text, row):\n    return row['right']\n", "table/a/000007", "KeyError"),
    judged("a scorer that returns a number", "def score(text, row):\n    return 1\n", "table/a/000007", "a bool"),
    judged("a scorer that says right and unreadable", "def score(text, row):\n    return {'correct': True, 'invalid': True}\n",
           "table/a/000007", "false of what is right"),
    judged("a scorer that imports what is not there", "import nowhere_at_all\ndef score(text, row): ...\n", "cannot be loaded"),
    # ---- model folders
    model("no config.json", gone("config.json"), "no config.json"),
    model("a config.json that is not JSON", put("config.json", "{"), "config.json that cannot be read"),
    model("no weights", gone("model.safetensors"), "no safetensors weights"),
    model("weights that could run code", both(gone("model.safetensors"), put("pytorch_model.bin", b"x")), "pytorch_model.bin", "can run code"),
    model("truncated weights", cut("model.safetensors", 0.8), "damaged model.safetensors"),
    model("empty weights", put("model.safetensors", b""), "damaged model.safetensors"),
    model("a sharded model that lacks a shard", both(gone("model.safetensors"), put("model.safetensors.index.json", {
        "metadata": {}, "weight_map": {"x": "model-00002-of-00002.safetensors"}})), "lacks a shard", "00002"),
    model("an index without metadata", both(gone("model.safetensors"), put("model.safetensors.index.json", {"weight_map": {"x": "y.safetensors"}})), "without metadata"),
    model("a config of another architecture", edit("config.json", model_type="phi", architectures=["PhiForCausalLM"]), "those of its config.json", "final_layernorm"),
    model("an index without a map", both(gone("model.safetensors"), put("model.safetensors.index.json", {})), "without a weight_map"),
    model("no tokenizer", gone("tokenizer.json"), "no tokenizer"),
    model("no tokenizer_config.json", gone("tokenizer_config.json"), "no tokenizer_config.json"),
    model("no chat template", gone("chat_template.jinja"), "cannot render a conversation", "chat template: no"),
    model("no end token", put("tokenizer_config.json", {}), "cannot render a conversation", "end token: no"),
    model("a template that closes no answer", put("chat_template.jinja", "{% for m in messages %}{{ m['content'] }}{% endfor %}"), "would never stop"),
    model("a template that wants a system message", put("chat_template.jinja", "{{ raise_exception('a system message first') }}"), "a system message first"),
    model("a template that reads the clock", put("chat_template.jinja", "{{ strftime_now(form) }}"), "reads the clock"),
    model("quantised weights", edit("config.json", quantization_config={"quant_method": "gptq"}), "quantised", "gptq"),
    model("weights under a prefix", put_weights("_orig_mod.model.layers.0.mlp.up_proj.weight"), "under a prefix", "_orig_mod."),
    model("weights of another type", put_weights("model.norm.weight", np.int8), "quantised", "I8"),
    model("weights that are no numbers", put_weights("model.norm.weight", value=float("nan")), "no numbers", "model.norm.weight"),
    model("an end token that nobody knows", edit("tokenizer_config.json", eos_token="<|end|>"), "does not know", "<|end|>"),
    model("a tokenizer of another model", edit("tokenizer.json", added_tokens=[{"id": 9}]), "knows more tokens", "token id 9"),
    model("a config of another model", edit("config.json", vocab_size=8), "of other sizes", "[8, 2]"),
    model("an output layer that is promised and missing", lambda folder: _without_head(folder), "output layer", "lm_head"),
    model("a file instead of a folder", lambda folder: _as_file(folder), "is not a folder"),
    # ---- tensor files
    given("a given model of another vocabulary", both(
        edit("config.json", vocab_size=5), put_embeddings(5)), "cannot be compared or merged", "lm_head"),
    given("a given model with another tokenizer", swap_words, "another tokenizer"),
    given("a given model with other positions", edit("config.json", rope_theta=5e5), "otherwise than the aligned model", "rope_theta"),
    given("an adapter of another model", adapter((1, 3)), "does not fit the model it is to stand on"),
    given("an adapter with another formula", adapter((1, 2), use_dora=True), "use_dora", "merge it"),
    given("an adapter of what PiSSA left of the weights", adapter((1, 2), init_lora_weights="pissa"), "init_lora_weights"),
    given("an adapter of another kind", adapter((1, 2), peft_type="IA3"), "peft_type"),
    tensor("a missing file", gone("m.safetensors"), "m.safetensors is missing"),
    tensor("a truncated file", cut("m.safetensors", 0.7), "damaged"),
    tensor("an empty file", put("m.safetensors", b""), "damaged"),
    tensor("not safetensors", put("m.safetensors", b"\0" * 64), "damaged"),
    tensor("a file of another family", lambda folder: None, "not what this step reads", "basis", family="basis"),
    tensor("a file without our header", lambda folder: _foreign(), "not what this step reads", "no family"),
    tensor("a mask of other layers", lambda folder: None, "other layers", layers=["a"]),
    tensor("a mask of another model", lambda folder: None, "aligned differs", expect={"aligned": "y"}),
    # ---- commands
    # In a folder of its own: the project's studies are the user's to add to.
    command("a study that does not exist", lambda: resolve.load("dmeo", Path("config")), "did you mean 'demo'",
            prepare=lambda: [write(f"config/{name}.yaml", GOOD) for name in ("demo", "smoke")]),
    command("a plan of a study that does not exist", lambda: main(["plan", "nope"]), "There is no study file"),
    command("a plan of an unknown hub model", lambda: main(["plan", "mine.yaml"]), "not known here", "--model-config",
            prepare=lambda: write("mine.yaml", changed("base.source", "nobody/none"))),
    command("a table that was not made", lambda: main(["table", "mine.yaml"]), "no table yet",
            prepare=lambda: write("mine.yaml", GOOD)),
    command("a table of a study that does not exist", lambda: main(["table", "dmeo"]), "did you mean 'demo'",
            prepare=lambda: write("config/demo.yaml", GOOD)),
    command("pushing a study that has not run", lambda: main(["push", "mine.yaml"]), "Nothing of the study",
            prepare=lambda: write("mine.yaml", GOOD)),
    command("pulling a study that was not pushed", lambda: main(["pull", "mine.yaml"]), "was not pushed",
            prepare=lambda: write("mine.yaml", GOOD)),
    command("pulling a family that was not pushed", lambda: main(["pull", "mine.yaml", "models"]), "models was not pushed",
            prepare=pushed),
    command("pulling where there is no DVC remote", lambda: main(["pull", "mine.yaml"]), "There is no DVC remote", "dvc remote add",
            prepare=pushed),
    command("a provenance.json with a merge conflict", lambda: main(["snapshot", "save"]), "provenance.json cannot be read",
            prepare=lambda: write("provenance.json", "<<<<<<< ours\n{}\n")),
    command("answers of a study that has none", lambda: main(["answers", "mine.yaml"]), "is judged yet", "metrics.json",
            prepare=lambda: write("mine.yaml", GOOD)),
    command("a gate of a study that is not finished", lambda: main(["gate", "mine.yaml"]), "is not finished", "results/mine/gate.json",
            prepare=lambda: write("mine.yaml", GOOD)),
    command("a gate for an arm that the study does not have", lambda: main(["gate", "mine.yaml", "--arm", "wrap"]), "--arm", "full | warp",
            prepare=lambda: write("mine.yaml", GOOD)),
    command("a gate in a format there is not", lambda: main(["gate", "mine", "--format", "html"]), "markdown", "holdfast gate --help"),
    command("a verb that does not exist", lambda: main(["tabel"]), "There is no verb 'tabel'", "did you mean 'table'"),
    command("the name of a study in place of a verb", lambda: main(["mine"]), "holdfast table mine",
            prepare=lambda: write("config/mine.yaml", GOOD)),
    command("an option that does not exist", lambda: main(["audit", "--evry"]), "No such option", "holdfast audit --help"),
    command("a verb without what it is about", lambda: main(["why"]), "Missing argument 'TARGET'", "holdfast why --help"),
    command("a number that is out of range", lambda: main(["plan", "mine", "--utilization", "3"]), "not in the range"),
    command("a dvc.lock of another form", lambda: main(["pull", "mine.yaml"]), "schema 3.0", "tested with dvc",
            prepare=lambda: (write("mine.yaml", GOOD), write("dvc/mine/dvc.lock", "schema: '3.0'\nstages: {}\n"))),
    command("Snakemake's records in another format", lambda: main(["snapshot", "save"]), "format 7", "tested with snakemake",
            prepare=lambda: write(f"{snakemake.RECORDS}/eA==", '{"record_format_version": 7}')),
    command("processes launched by a file that says something else", lambda: several.refuse_config(Path("mine.yaml")), "MULTI_GPU", "fsdp_version: 2",
            prepare=lambda: write("mine.yaml", {"distributed_type": "MULTI_GPU", "fsdp_config": {"fsdp_version": 2}})),
    command("processes launched by a file that says what the study says", lambda: several.refuse_config(Path("mine.yaml")), "fsdp_activation_checkpointing: True",
            prepare=lambda: write("mine.yaml", {"distributed_type": "FSDP", "fsdp_config": {"fsdp_version": 2, "fsdp_activation_checkpointing": True}})),
    command("a word where --config has a number", lambda: preflight.check_options({"study": "x", "share": "never"}), "share=never", "share=1, or 0"),
    command("a study that is not named", lambda: preflight.check_options({"study": None}), "study=", "leave it out"),
    command("no core to run on", lambda: preflight.check_cores(0), "--cores 0", "at least 1"),
    command("a rule with a typo", lambda: _stop(words.mistake("MissingRuleException", "No rule to produce modelz (if you use", ["models", "table"])), "modelz", "did you mean 'models'"),
    command("a second run in the folder", lambda: _stop(words.mistake("LockException", "", [])), "Another run", "--unlock"),
    command("a name that --config does not know", lambda: preflight.check_options({"gpus": 2}), "gpus=2", "study, accelerate, gpu"),
    command("fewer GPUs than processes", lambda: several.refuse_devices(4, ["0", "1"]), "fewer GPUs", "2 here"),
    command("answers that do not differ by the rules", lambda: main(["prefer", "a.csv", "--out", "pairs.csv"]),
            "No request has answers that differ", "1 with one answer", prepare=lambda: write("a.csv", "prompt,response\nHow?,So.\n")),
    command("an answer without its request", lambda: main(["prefer", "a.csv", "--out", "pairs.csv"]), "row 0 is no answer to a request",
            prepare=lambda: write("a.csv", "prompt,response\n,So.\n")),
    command("pairs over a file that is there", lambda: main(["prefer", "a.csv", "--out", "a.csv"]), "cannot be written",
            prepare=lambda: write("a.csv", "prompt,response\nHow?,So.\n")),
    command("a route in a study that has not run", lambda: main(["route", "mine.yaml", "--first", "refusal", "--then", "world"]),
            "no judged answers yet", prepare=lambda: write("mine.yaml", GOOD)),
    command("generated files outside a checkout", lambda: main(["documents"]), "a checkout of holdfast"),
    command("an audit of a study that does not exist", lambda: main(["audit", "nope"]), "There is no study file"),
    command("a method that does not exist", lambda: registry.header("lorra"), "There is no method 'lorra'"),
    command("chosen settings of no known form", lambda: reading.read_chosen(Path("c.yaml")), "c.yaml",
            prepare=lambda: write("c.yaml", {"warp": {"gsm8k": {"rate": 1}}})),
]  # fmt: skip


def _without_head(folder: Path) -> None:
    from safetensors.numpy import load_file, save_file

    path = folder / "model.safetensors"
    save_file({k: v for k, v in load_file(path).items() if "head" not in k}, path)


def _as_file(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    folder.write_text("x")


def _stop(error: HoldfastError | None) -> None:
    """What is said in place of Snakemake's words."""
    assert error is not None
    raise error


def _foreign() -> None:
    from safetensors.numpy import save_file

    save_file({"a": np.zeros(3, np.uint8)}, "m.safetensors")


def listing() -> dict[str, tuple[int, int]]:
    """Every file here: size and time."""
    return {str(p): (p.stat().st_size, p.stat().st_mtime_ns) for p in sorted(Path().rglob("*")) if p.is_file()}


@contextlib.contextmanager
def within(folder: Path) -> Iterator[None]:
    kept = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(kept)


def block(case: Case, folder: Path) -> tuple[str, int, bool]:
    """(what is printed, exit code, whether anything was written) of a case, in an empty folder."""
    with within(folder):
        case.prepare()
        before, said = listing(), io.StringIO()
        with contextlib.redirect_stderr(said):
            try:
                code = case.act()
            except HoldfastError as error:
                said.write(error.block() + "\n")
                code = error.exit_code
        printed = said.getvalue().rstrip("\n")
        for place in (ROOT, folder, folder.resolve()):
            printed = printed.replace(f"{place}/", "")
        return printed, code, listing() != before


def document() -> str:
    """docs/errors.md."""
    lines = [
        "# What mistakes say", "",
        "Written by `make documents` from tests/bad_input.py, whose cases are all tests: one block, exit code 2, nothing "
        f"written. {len(CASES)} cases.", "",
    ]  # fmt: skip
    for group in (STUDY, DATA, MODEL, TENSOR, COMMAND):
        lines += [f"## {group}", ""]
        for case in (c for c in CASES if c.group == group):
            with tempfile.TemporaryDirectory() as folder:
                lines += [
                    f"**{case.title[0].upper()}{case.title[1:]}**",
                    "",
                    "```",
                    block(case, Path(folder))[0],
                    "```",
                    "",
                ]
    return "\n".join(lines)


if __name__ == "__main__":
    if sys.argv[1:] == ["--check"]:
        sys.exit(
            0 if DOCUMENT.read_text(encoding="utf-8") == document() else f"{DOCUMENT.name} is stale: make documents"
        )
    files.write_text(DOCUMENT, document())
