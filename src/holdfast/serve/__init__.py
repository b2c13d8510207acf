"""How is a tracking server of one's own brought up and ended?"""
