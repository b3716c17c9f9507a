"""What the benchmarks share: processes, the whole chain, peers, and how figures are told."""
