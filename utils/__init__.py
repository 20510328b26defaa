"""What two or more of the scripts share, one concern a file. Nothing in here imports a script."""
