"""Ours against the authors' public code, function by function: see README.md of this folder."""
