"""What may be said of the numbers?"""
