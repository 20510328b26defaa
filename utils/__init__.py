"""What the scripts share, in packages named for the stage they serve; see README.md, "The source". Nothing here imports
a script."""
