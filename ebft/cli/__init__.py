"""The commands `ebft` and `tune`. torch is imported only by commands that need it.

main                   parses the command line, and turns errors into exit statuses
  run                    run, eval, study and validate: the commands that take a recipe
  preview                what validate --data shows of a recipe's documents
  noise                  noise: what a recipe's gradient says
  results                compare and report: the commands that read results
  sample                 sample: what a checkpoint and its base model write
  ls, types              lists parts and recipes; types of options in readable form
  cp, new_plugin         copies a recipe; creates a plug-in package
  doctor                 reports what is installed
main_process           output and errors of a run in several processes
tune                   torchtune's command, which also runs ebft's recipes
"""
