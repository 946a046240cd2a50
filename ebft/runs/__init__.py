"""What a recipe runs: fine-tuning and evaluation, from their options to their output."""
