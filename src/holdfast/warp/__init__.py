"""The constrained optimizer and its tensors."""
