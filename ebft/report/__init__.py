"""Tables and pictures of runs, and metric loggers.

tables                                  what a run prints: held-out figures, rollouts
curves, style                           pictures of a run; how all pictures look
read_runs, compare, comparison_table    `ebft compare`: the runs' figures, their differences
loggers, logged_tables                  TensorBoard, Weights & Biases, trackio; the tables they get
"""
