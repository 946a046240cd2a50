"""The recipes that run a model: fine-tuning and evaluation, from their options to their output.

options, checks, trial      what a recipe says, and whether its sections go together
jobs                        the two jobs, by the names of their recipes
finetune, evaluate          the two runs, top to bottom
  folder                      the output folder, locked, and where a run starts
  layout                      tree or rows, by trying the model
  setup                       everything that a run needs before its first step
  progress                    what a person sees, and what is logged
  measuring                   held-out figures and gradients
  failures, signals           what is saved when a run fails, and how it is stopped
  memory                      what is free, what fits, and smaller micro-batches
estimate, cost              what a step costs: `--dry-run`
"""
