"""What is in the fictional world: its words, rows, tokenizer and tiny model? Nothing in it exists."""
