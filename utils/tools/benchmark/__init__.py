"""How fast is it? One subject a file, each with two functions:

    measure(bench) -> dict      numbers and words alone, as they go into the JSON
    report(found)               prints them as a table

`SUBJECTS` of __main__.py puts them in order; bench.py holds what they share, plain.py what they are compared with.
"""
