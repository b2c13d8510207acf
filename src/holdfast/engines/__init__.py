"""What do we know of the insides of Snakemake and DVC?"""
