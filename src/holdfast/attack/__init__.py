"""What does an attacker reach who may tune the fine-tuning? Trials that are chosen, kept and replayed."""
