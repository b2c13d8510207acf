"""Greedy answers by vLLM, which lives in an environment of its own: HOLDFAST_VLLM names its interpreter.

The same prompts as token ids, the same stop tokens and limits as `answers`, nothing of the checkpoint's own wishes.
vLLM computes in another order, so that of two tokens that are nearly as likely it may take the other.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from holdfast.errors import ArtifactError, StudyError

VARIABLE = "HOLDFAST_VLLM"
_WORKER = Path(__file__).with_name("vllm_worker.py")
_SECONDS = 60
Ids = list[int]


def interpreter() -> str:
    """The Python that has vLLM: what HOLDFAST_VLLM names, else this one."""
    return os.environ.get(VARIABLE) or sys.executable


def absent(key: str) -> StudyError | None:
    """What to say where the interpreter is not there, or has no vLLM; it is asked, and imports nothing. Of `key`, which
    wants it; None where all is well."""
    asked = [interpreter(), "-c", "import importlib.util as u, sys; sys.exit(u.find_spec('vllm') is None)"]
    try:
        code = subprocess.run(asked, capture_output=True, timeout=_SECONDS, env=_environment()).returncode
    except (OSError, subprocess.TimeoutExpired):
        code = -1
    if not code:
        return None
    return StudyError(
        f"{key} asks vLLM, which is not there.",
        found=f"no vllm in {interpreter()}" if code == 1 else f"{interpreter()} is no Python that runs",
        expected=f"{VARIABLE} to name the interpreter of an environment with vLLM",
        do=f"python -m venv vllm && vllm/bin/pip install vllm && export {VARIABLE}=$PWD/vllm/bin/python",
    )  # fmt: skip


def generate(
    folder: Path, prompts: Sequence[tuple[Ids, int]], *, stops: Sequence[int], positions: int | None,
    settings: Mapping[str, Any], say: Callable[[str], None] = lambda _: None,
) -> list[tuple[Ids, str]]:  # fmt: skip
    """As `answers.generate`: (new token ids up to and without the first of `stops`, finish) for every prompt.

    Args:
        folder: of the model, in Hugging Face layout. prompts: token ids, and the longest answer.
        positions: how many tokens the model can see; None where it does not say.
        settings: dtype, and options of vllm.LLM.

    Raises:
        ArtifactError: vLLM could not be started, or failed; what it said is in the log.
    """
    room = [limit if positions is None else min(limit, positions - len(ids)) for ids, limit in prompts]
    asked = [i for i, n in enumerate(room) if n > 0]
    out: list[tuple[Ids, str]] = [([], "context") for _ in prompts]
    if not asked:
        return out
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary) / "answers.json"
        request = {
            "model": str(folder.resolve()), "dtype": settings["dtype"], "options": settings["options"],
            "stops": list(stops), "out": str(place), "prompts": [[prompts[i][0], room[i]] for i in asked],
        }  # fmt: skip
        code = _run(request)
        if code or not place.exists():
            raise ArtifactError(
                f"vLLM gave no answers of {folder}.", found=f"{interpreter()} ended with code {code}",
                expected="a model that vLLM loads, and room for it",
                do="read what it says above in this log; evaluation.vllm.options go to vllm.LLM",
            )  # fmt: skip
        found = json.loads(place.read_text(encoding="utf-8"))
    say(f"answered {len(asked)} prompts by vLLM {found['version']}")
    for i, (new, _) in zip(asked, found["answers"], strict=True):
        end = next((n for n, token in enumerate(new) if token in stops), None)
        cut = "length" if room[i] == prompts[i][1] else "context"
        out[i] = (new, cut) if end is None else (new[:end], "stop")
    return out


def _run(request: Mapping[str, Any]) -> int:
    """The exit code of the worker; what it prints goes where this process prints."""
    with subprocess.Popen(
        [interpreter(), str(_WORKER)], stdin=subprocess.PIPE, encoding="utf-8", env=_environment()
    ) as worker:  # fmt: skip
        assert worker.stdin is not None  # asked for
        with contextlib.suppress(BrokenPipeError):  # it ended before it read
            worker.stdin.write(json.dumps(request) + "\n")
            worker.stdin.flush()
        code = worker.wait()
        with contextlib.suppress(BrokenPipeError):  # what it did not read is written once more
            worker.stdin.close()
        return code


def _environment() -> dict[str, str]:
    """Ours, without the paths of this environment's packages."""
    return {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"VLLM_NO_USAGE_STATS": "1"}
