"""The one door: `holdfast VERB`, one file each."""
