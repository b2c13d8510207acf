"""Which published safety data is known by name, and what of it must be refused? One file each."""
