"""The reference process: protocol, unit problem, Green functions, bridges, grids of times."""
