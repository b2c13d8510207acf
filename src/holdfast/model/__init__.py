"""From a folder to a model and its tokens."""
