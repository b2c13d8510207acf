"""Run by the interpreter of the environment that vLLM lives in, which has nothing of holdfast: a request on standard
input, the answer in a file.

Request: {model, dtype, options, stops, out, prompts: [[token ids, longest answer], ...]}.
Answer: {version, answers: [[token ids, finish], ...]}, in the order of the prompts.
"""

import json
import os
import sys
import threading
from pathlib import Path


def main() -> None:
    """Read a request, let vLLM answer, write the answers."""
    request = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_asker, daemon=True).start()
    here = Path(__file__).resolve().parent  # whose files have the names of packages
    sys.path[:] = [p for p in sys.path if Path(p).resolve() != here]
    import vllm

    longest = max(len(ids) + limit for ids, limit in request["prompts"])
    llm = vllm.LLM(
        **{"max_model_len": longest, "seed": 0, "disable_log_stats": True} | request["options"],
        model=request["model"],
        dtype=request["dtype"],
        skip_tokenizer_init=True,
        trust_remote_code=False,
        generation_config="vllm",  # and not what the checkpoint wishes: its penalties and temperatures
    )
    found = llm.generate(
        [{"prompt_token_ids": ids} for ids, _ in request["prompts"]],
        [
            vllm.SamplingParams(
                temperature=0, max_tokens=limit, stop_token_ids=request["stops"], ignore_eos=True, detokenize=False
            )
            for _, limit in request["prompts"]
        ],
        use_tqdm=False,
    )
    answers = [[list(one.outputs[0].token_ids), one.outputs[0].finish_reason] for one in found]
    said = json.dumps({"version": vllm.__version__, "answers": answers})
    Path(request["out"]).write_text(said, encoding="utf-8")


def _end_with_asker() -> None:
    """Whoever asked holds the other end of standard input for as long as it lives."""
    sys.stdin.read()
    os._exit(1)


if __name__ == "__main__":  # vLLM starts processes that import this file
    main()
