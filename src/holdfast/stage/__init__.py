"""Where does a script meet Snakemake?"""
