"""What birthplace-bench runs, one file a comparison: ratios within one run, repetitions in turn, medians."""
