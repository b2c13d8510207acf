"""TRL's `SFTTrainer` with the protected optimizer (pip install trl)."""

import tempfile

from datasets import Dataset
from tiny import REFUSALS, TASK, model_and_tokenizer
from trl import SFTConfig, SFTTrainer

from holdfast import protect  # 1

model, tokenizer = model_and_tokenizer()
conversations = Dataset.from_list([
    {"prompt": [{"role": "user", "content": r["prompt"]}],
     "completion": [{"role": "assistant", "content": r["response"]}]} for r in TASK
])  # fmt: skip

protection = protect.from_refusals(model, tokenizer, REFUSALS)  # 2
optimizer = protection.optimizer(model.parameters(), lr=1e-3, max_grad_norm=1.0)  # 3

with tempfile.TemporaryDirectory() as folder:
    settings = SFTConfig(
        folder, num_train_epochs=1, per_device_train_batch_size=8, max_grad_norm=0, report_to=[], use_cpu=True,
        bf16=False,
    )  # fmt: skip
    trainer = SFTTrainer(
        model, settings, train_dataset=conversations, processing_class=tokenizer, optimizers=(optimizer, None)
    )
    result = trainer.train()
print(f"{result.global_step} steps, loss {result.training_loss:.2f}")
