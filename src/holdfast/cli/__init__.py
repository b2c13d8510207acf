"""What does `holdfast VERB` do? One file each."""
