"""accelerate with the protected optimizer: made before the model is prepared, and prepared with it."""

from accelerate import Accelerator
from tiny import REFUSALS, TASK, batches, model_and_tokenizer

from holdfast import protect  # 1

accelerator = Accelerator(cpu=True)
model, tokenizer = model_and_tokenizer()

protection = protect.from_refusals(model, tokenizer, REFUSALS)  # 2
optimizer = protection.optimizer(model.parameters(), lr=1e-3, max_grad_norm=1.0)  # 3

model, optimizer = accelerator.prepare(model, optimizer)
model.train()
for batch in batches(tokenizer, TASK):
    loss = model(**batch).loss
    accelerator.backward(loss)
    optimizer.step()
    optimizer.zero_grad()
print(f"loss {loss.item():.2f}")
