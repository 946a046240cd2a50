"""What a recipe runs: fine-tuning and evaluation, from their options to their output.

finetune_options, checks        the schema, and how its sections must go together
run_job                         one job: setup, run, cleanup
finetune                        the job, top to bottom
  start, output                 which checkpoint it continues from; whose folder it is
  prepare                       everything that it needs before its first step:
    resources, documents          the model; what it trains on and holds out
    evaluation_sets, loop    what is measured; what the training loop calls
  describe, progress, console   what is said, shown and logged
  measuring                     held-out figures and gradients
  checkpointer                  the whole state, saved and brought back
  halving, memory, free_memory  micro-batches halved until the first step fits
  interrupt, rescue, blame      signals; what a failure saves; whose failure it was
evaluate_options, evaluate      the other job
estimate, dry_run               what a step costs: `--dry-run`
"""
