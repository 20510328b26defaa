"""The kit's figures. A function with a `path` draws one figure and writes it there, as PNG or JPEG;
`location_sheet` writes a page of HTML. Nothing here reads a run or computes a score that is not shown.
"""
