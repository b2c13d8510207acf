"""How does a folder become a model and its tokens?"""
