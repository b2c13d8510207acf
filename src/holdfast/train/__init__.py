"""What runs on the one training loop?"""
