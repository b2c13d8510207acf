"""The one training loop and what runs on it."""
