"""How is a finished study kept, checked and carried?"""
