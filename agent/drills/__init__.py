"""Drills: faults injected on purpose, each undone by a process that outlives everything else."""
