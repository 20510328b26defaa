"""The kit's figures. A function with a `path` draws one figure and writes it to that PNG or JPEG file."""
