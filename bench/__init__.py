"""The benchmark. `bench/run` starts it; README.md says what is measured and how."""
