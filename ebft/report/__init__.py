"""Tables and pictures of runs, and metric loggers.

tables                                  what a run prints: held-out figures, rollouts
curves, style                           pictures of a run; how all pictures look
page, run_page, panels                  HTML pages of one file; that of a run, and its pictures
samples                                 what two models wrote: a table, a page, lines of a file
rollouts_log, surroundings              what a run keeps for its page: rollouts; how it was started
read_runs, compare, comparison_table    `ebft compare`: the runs' figures, their differences
card                                    the model card of a checkpoint
loggers, logged_tables                  TensorBoard, Weights & Biases, trackio; the tables they get
"""
