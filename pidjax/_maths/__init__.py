"""Mathematics that knows nothing of processes: linear maps, small matrices, logarithms, weighted samples."""
