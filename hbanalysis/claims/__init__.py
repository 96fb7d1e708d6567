"""The claims of the paper, decided on rows by criteria that were fixed before the first row."""
