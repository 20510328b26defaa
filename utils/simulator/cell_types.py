"""The 27 cell types of the simulated atlas, the rows of cell_types.csv; lengths in micrometres.

They are named after cell lines of the Human Protein Atlas with a similar look: cobblestone islands, parallel spindles,
round cells in suspension, neurites. The numbers are estimates from this look, not measurements.

frequency: relative frequency of the type. cells: mean number per field. size: radius of a circle with the area of a
cell. stretch: length over width. aligned: 0 random directions .. 1 all parallel. ragged: unevenness of the outline.
arms: mean number of processes; arm: their length as a multiple of the size. islands: 0 scattered evenly .. 1 all in
touching islands. overlap: fraction of cells that lie over or under others. nucleus: its radius. oval: its length over
width. dents: unevenness of its outline. grain: contrast of the chromatin. nucleoli: mean number. spread: how near
microtubules come to the cell's edge, 0..1. curl: how much they bend. flat: 1 a thin cell whose cytoplasm fades outward
.. 0 a ball as bright at its edge. Derived columns: touching: cells grow in contact, so that they can have junctions;
adherent: cells spread on the glass, so that they can have stress fibres and focal adhesions.
"""

from pathlib import Path

import pandas as pd

_table = pd.read_csv(Path(__file__).with_name("cell_types.csv"))
_table = _table.assign(touching=_table["islands"] >= 0.7, adherent=_table["flat"] > 0.1)
CELL_TYPES = list(_table.itertuples(index=False, name="CellType"))
