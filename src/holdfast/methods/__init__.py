"""What does one remedy do? One file each."""
