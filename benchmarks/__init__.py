"""Side-by-side benchmarks; `published` is the opponent, and the reference of the equality tests."""
