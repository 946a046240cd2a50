"""The recipes that run a model: fine-tuning and evaluation, from their options to their output.

options, checks, trial      the options of a recipe, and checks of their combinations
jobs                        the two jobs, by the names of their recipes
finetune, evaluate          the two runs, top to bottom
  folder                      the output folder and its lock, and the step a run starts at
  setup                       loads the model and the data, and builds the parts
  progress, metrics_log       the progress bar, and the metric loggers
  measuring                   held-out figures and gradients
  page                        the run's page, `report.html`
  failures, signals           saves a checkpoint when a run fails, or is stopped by a signal
  memory                      free memory, the size of micro-batches, running out of memory
estimate                    what a step costs: `--dry-run`
"""
