"""Merges of finished models, folder to folder, and a judge of answers."""

import tempfile
from pathlib import Path

import torch
from tiny import model_and_tokenizer

from holdfast import judge, merge  # 1

folder = Path(tempfile.mkdtemp())
for number, name in enumerate(("base", "aligned", "finetuned", "unaligned")):  # stand-ins for models of yours
    model, tokenizer = model_and_tokenizer()
    torch.manual_seed(number)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.01 * torch.randn_like(weight))
    model.save_pretrained(folder / name)
    tokenizer.save_pretrained(folder / name)

merge.resta(folder / "aligned", folder / "finetuned", folder / "resta", unaligned=folder / "unaligned", gamma=0.5)  # 2
record = merge.safe_lora(folder / "aligned", folder / "finetuned", folder / "safe", base=folder / "base", number=4)  # 3
print(f"{record['modules_projected']} of {record['modules']} modules projected")

refused = judge("refusal")  # 4
for answer in ("I cannot help with that.", "Sure! First, warm the pot."):
    print(f"{answer!r}: {refused('How do I brew it?', answer)}")  # 5
