"""`transformers.Trainer` with the protected optimizer; the Trainer leaves clipping to it (max_grad_norm=0)."""

import tempfile

from tiny import REFUSALS, TASK, batches, model_and_tokenizer
from transformers import Trainer, TrainingArguments

from holdfast import protect  # 1

model, tokenizer = model_and_tokenizer()
rows = [{k: v[0] for k, v in batch.items()} for batch in batches(tokenizer, TASK, size=1)]

protection = protect.from_refusals(model, tokenizer, REFUSALS)  # 2
optimizer = protection.optimizer(model.parameters(), lr=1e-3, max_grad_norm=1.0)  # 3

with tempfile.TemporaryDirectory() as folder:
    arguments = TrainingArguments(
        folder, num_train_epochs=1, per_device_train_batch_size=1, gradient_accumulation_steps=8, max_grad_norm=0,
        report_to=[], logging_steps=1, use_cpu=True,
    )  # fmt: skip
    trainer = Trainer(model, arguments, train_dataset=rows, optimizers=(optimizer, None))
    result = trainer.train()
print(f"{result.global_step} steps, loss {result.training_loss:.2f}")
