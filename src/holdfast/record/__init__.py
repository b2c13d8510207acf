"""How is a file written, read and known again?"""
