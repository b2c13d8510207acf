"""The constrained optimizer: how are its bases, scores, masks and steps made?"""
