"""What stands at every door: checks of values and of functions, texts, progress."""
