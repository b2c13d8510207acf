"""holdfast: fine-tune a language model without losing its refusals."""

__version__ = "0.1.0"
