"""What do we say about ourselves, written from the code?"""
