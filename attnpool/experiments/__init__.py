"""Whole experiments: the paper's tables, the study of poolings, the benchmarks, the quickstart."""
