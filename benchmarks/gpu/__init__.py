"""The parts of `benchmarks.gpu_check`: what a GPU has to show, each part a module with `run(setup, report)`."""
