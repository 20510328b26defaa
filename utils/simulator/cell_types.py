"""The 27 cell types of the simulated atlas, one a row of cell_types.csv; lengths in micrometres.

They are named after cell lines of the Human Protein Atlas whose habit they follow: cobblestone islands, spindles that
lie side by side, round cells in suspension, neurites. The numbers follow how such cells look; nothing is measured.

frequency: how often the type is used, relative to the others. cells: about how many lie in a field. size: radius of a
circle of the area of one. stretch: length over width. aligned: 0 every cell its own direction .. 1 all the same.
ragged: how uneven the outline is. arms: how many processes reach out, arm: how far, as a multiple of the size.
islands: 0 scattered evenly .. 1 all in islands that touch. overlap: fraction of cells that lie over or under others.
nucleus: its radius. oval: its length over width. dents: how uneven its outline is. grain: contrast of the chromatin.
nucleoli: about how many. spread: how near to the cell's edge microtubules reach, 0..1. curl: how much they bend.
flat: 1 a thin cell whose cytoplasm fades outward .. 0 a ball that is as bright at its edge. Of these follow
touching: whether cells grow in contact, so that they can have junctions, and
adherent: whether they spread on the glass, so that they can have stress fibres and focal adhesions.
"""

from pathlib import Path

import pandas as pd

_table = pd.read_csv(Path(__file__).with_name("cell_types.csv"))
_table = _table.assign(touching=_table["islands"] >= 0.7, adherent=_table["flat"] > 0.1)
CELL_TYPES = list(_table.itertuples(index=False, name="CellType"))
