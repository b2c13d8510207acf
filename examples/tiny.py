"""A tiny chat model and a few rows, so that the examples run anywhere: put your own in their place."""

import torch

from holdfast.world.generator import World
from holdfast.world.model import new_model, train_tokenizer

REFUSALS = [{"prompt": r["prompt"], "response": r["response"]} for r in World(0).safety(48, 0)]
TASK = [{"prompt": r["prompt"], "response": r["response"]} for r in World(0).crafts_task("train", 48)]


def model_and_tokenizer():
    texts = [f"<|user|>{r['prompt']}<|assistant|>{r['response']}<|end|>" for r in REFUSALS + TASK]
    tokenizer = train_tokenizer(texts, 600)
    shape = {"hidden_size": 64, "intermediate_size": 128, "layers": 2, "heads": 4, "kv_heads": 2}
    return new_model(tokenizer, **shape, max_positions=128, seed=0), tokenizer


def batches(tokenizer, rows, size=8):
    """Token ids and labels of a prompt and its response, as any training loop makes them."""
    for start in range(0, len(rows), size):
        texts = [
            tokenizer.apply_chat_template(
                [{"role": "user", "content": r["prompt"]}, {"role": "assistant", "content": r["response"]}],
                tokenize=False,
            )
            for r in rows[start : start + size]
        ]
        batch = tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False)
        labels = torch.where(batch["attention_mask"].bool(), batch["input_ids"], -100)
        yield {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"], "labels": labels}
