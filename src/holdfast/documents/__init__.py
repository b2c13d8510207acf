"""What do we say about ourselves, written from the code and from what was measured?"""
