"""The fictional world: words, rows, tokenizer and tiny model. Nothing in it exists."""
