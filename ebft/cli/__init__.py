"""The commands `ebft` and `tune`. Nothing here imports torch before a command needs it."""
