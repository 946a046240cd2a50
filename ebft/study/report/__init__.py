"""What the runs of a study have shown: tables, pictures, a page."""
