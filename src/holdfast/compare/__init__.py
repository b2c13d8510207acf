"""What may be said?"""
