"""One paper's numbers beside those of runs trained as it describes: index.html and numbers.csv."""
