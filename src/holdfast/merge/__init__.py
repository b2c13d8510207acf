"""How is arithmetic done on finished models?"""
