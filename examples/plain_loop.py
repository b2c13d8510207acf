"""A PyTorch loop of one's own that keeps the refusals of its model."""

import sys

from tiny import REFUSALS, TASK, batches, model_and_tokenizer

from holdfast import protect  # 1

model, tokenizer = model_and_tokenizer()

protection = protect.from_refusals(model, tokenizer, REFUSALS, freeze_fraction=0.1)  # 2
optimizer = protection.optimizer(protection.parameters(), lr=1e-3, max_grad_norm=1.0)  # 3

model.train()
for batch in batches(tokenizer, TASK):
    loss = model(**batch).loss
    loss.backward()
    optimizer.step()
    model.zero_grad()
print(f"loss {loss.item():.2f}, {protection.frozen_fraction:.0%} of the protected coefficients did not move")

# Another process, the same model: the protection need not be made again.
if len(sys.argv) > 1:
    protection.save(sys.argv[1])  # 4
    again = protect.load(sys.argv[1], model)  # 5
    print(f"saved and loaded: {again.frozen_fraction:.0%}")
