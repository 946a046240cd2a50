"""Several processes that train together, and helpers of one process.

processes, parallel        the processes of a run, and how they share it
rendezvous, watchdog       how they find each other, and what happens if one fails
helper_process             a child process that answers requests, such as an engine
"""
