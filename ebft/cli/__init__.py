"""The commands `ebft` and `tune`. Nothing here imports torch before a command needs it.

main                   the command line, and the exit status of each error
  run                    run, eval, study and validate: what takes a recipe
  results                compare and report: what reads the results
  ls, types              the parts and recipes; types of options as a person reads them
  cp, new_plugin         copies of recipes; a new package
  doctor                 what is installed
one_voice              several processes, of which one prints
tune                   torchtune's command, which runs ebft's recipes too
"""
