"""Side-by-side benchmarks of the curvature engine against its peers."""
