"""Missing cells computed: in which order, over worker processes, inside a time budget."""
