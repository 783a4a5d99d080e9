"""A run: its state, its steps, the loop, its folder and checkpoints."""
