"""The 27 cell types of the simulated atlas, as numbers.

They are named after cell lines of the Human Protein Atlas whose habit they follow: cobblestone islands, spindles that lie
side by side, round cells in suspension, neurites. The numbers are drawn from how such cells look, not measured.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class CellType:
    """One cell type; lengths in micrometres.

    share: how often it is used, relative to the others.
    cells: about how many lie in a field. size: radius of a circle of the area of one. stretch: length over width.
    aligned: 0 every cell its own direction .. 1 all the same. ragged: how uneven the outline is. arms: how many
    processes reach out, arm: how far, as a multiple of the size. islands: 0 scattered evenly .. 1 all in islands that
    touch. overlap: share of cells that lie over or under others.
    nucleus: its radius. oval: its length over width. dents: how uneven its outline is. grain: contrast of the
    chromatin. nucleoli: about how many. spread: how near to the cell's edge microtubules reach, 0..1. curl: how much
    they bend. flat: 1 a thin cell whose cytoplasm fades outward .. 0 a ball that is as bright at its edge.
    """

    name: str
    share: float
    cells: float
    size: float
    stretch: float
    aligned: float
    ragged: float
    arms: int
    arm: float
    islands: float
    overlap: float
    nucleus: float
    oval: float
    dents: float
    grain: float
    nucleoli: float
    spread: float
    curl: float
    flat: float

    @property
    def touching(self):
        """Whether cells of this type grow in contact, so that they can have junctions."""
        return self.islands >= 0.7

    @property
    def adherent(self):
        """Whether it spreads on the glass, so that it can have stress fibres and focal adhesions."""
        return self.flat > 0.1


# fmt: off
CELL_TYPES = [CellType(*row) for row in (
    # name, share, cells, size, stretch, aligned, ragged, arms, arm, islands, overlap,
    # nucleus, oval, dents, grain, nucleoli, spread, curl, flat
    ("A-431",       14, 20, 16.5, 1.25, 0.1, 0.12, 0, 0.5, 0.85, 0.05,  8.3, 1.15, 0.04, 0.18, 4.0, 0.80, 0.35, 0.55),
    ("A549",         6, 14, 19.5, 1.45, 0.2, 0.18, 1, 0.5, 0.45, 0.05,  8.9, 1.20, 0.04, 0.14, 3.0, 0.85, 0.30, 0.75),
    ("AF22",         1, 28, 10.6, 3.00, 0.5, 0.16, 2, 1.6, 0.30, 0.10,  5.9, 1.35, 0.04, 0.21, 3.0, 0.90, 0.15, 0.45),
    ("BJ",           3,  8, 26.0, 5.00, 0.9, 0.12, 1, 0.8, 0.10, 0.20,  9.1, 1.50, 0.03, 0.13, 3.0, 0.95, 0.10, 0.70),
    ("CACO-2",       3, 30, 12.4, 1.15, 0.0, 0.08, 0, 0.5, 0.95, 0.05,  7.0, 1.12, 0.04, 0.18, 3.0, 0.85, 0.40, 0.35),
    ("EFO-21",       2, 11, 21.8, 1.30, 0.1, 0.20, 1, 0.4, 0.50, 0.08, 10.0, 1.20, 0.07, 0.14, 3.5, 0.85, 0.40, 0.80),
    ("HaCaT",        3, 18, 17.1, 1.25, 0.1, 0.10, 0, 0.5, 0.90, 0.00,  8.5, 1.15, 0.03, 0.14, 4.0, 0.90, 0.30, 0.60),
    ("HAP1",         2, 34, 10.1, 1.35, 0.1, 0.18, 1, 0.5, 0.75, 0.10,  5.9, 1.20, 0.04, 0.19, 2.5, 0.80, 0.30, 0.40),
    ("HEK 293",      7, 32, 11.3, 1.45, 0.1, 0.22, 2, 0.8, 0.80, 0.12,  6.6, 1.22, 0.04, 0.21, 3.0, 0.85, 0.25, 0.45),
    ("HEL",          2, 26,  7.2, 1.08, 0.0, 0.05, 0, 0.5, 0.20, 0.05,  5.6, 1.10, 0.09, 0.24, 2.0, 0.95, 0.60, 0.05),
    ("HeLa",         5, 17, 15.9, 1.55, 0.2, 0.20, 1, 0.7, 0.45, 0.08,  8.1, 1.20, 0.04, 0.18, 3.5, 0.85, 0.25, 0.55),
    ("Hep G2",       4, 27, 13.6, 1.15, 0.0, 0.10, 0, 0.5, 0.95, 0.05,  7.2, 1.10, 0.03, 0.18, 2.5, 0.80, 0.45, 0.45),
    ("hTERT-RPE1",   3, 10, 23.6, 2.10, 0.4, 0.16, 1, 0.6, 0.20, 0.08,  8.9, 1.35, 0.02, 0.10, 3.0, 0.95, 0.20, 0.80),
    ("HUVEC TERT2",  2, 12, 21.2, 1.60, 0.4, 0.12, 1, 0.4, 0.50, 0.05,  8.5, 1.30, 0.02, 0.10, 3.0, 0.95, 0.35, 0.85),
    ("K-562",        2, 22,  9.2, 1.06, 0.0, 0.05, 0, 0.5, 0.15, 0.05,  7.0, 1.12, 0.11, 0.22, 2.5, 0.95, 0.60, 0.05),
    ("LHCN-M2",      1,  9, 23.6, 3.60, 0.6, 0.14, 2, 1.0, 0.15, 0.15,  8.7, 1.40, 0.02, 0.11, 3.0, 0.95, 0.12, 0.65),
    ("MCF7",         6, 19, 15.9, 1.25, 0.1, 0.14, 0, 0.5, 0.85, 0.05,  8.1, 1.15, 0.04, 0.16, 3.5, 0.80, 0.40, 0.55),
    ("NIH 3T3",      2, 14, 18.9, 1.90, 0.3, 0.22, 3, 0.9, 0.10, 0.10,  7.8, 1.25, 0.03, 0.44, 5.0, 0.95, 0.15, 0.65),
    ("PC-3",         4, 15, 17.1, 1.60, 0.2, 0.26, 2, 0.7, 0.40, 0.15,  8.7, 1.25, 0.08, 0.18, 3.5, 0.85, 0.25, 0.60),
    ("REH",          2, 34,  6.2, 1.06, 0.0, 0.05, 0, 0.5, 0.25, 0.05,  4.9, 1.08, 0.08, 0.24, 1.5, 0.95, 0.60, 0.05),
    ("RH-30",        3, 12, 20.1, 1.80, 0.3, 0.26, 2, 0.7, 0.25, 0.15,  9.5, 1.30, 0.11, 0.16, 4.0, 0.90, 0.20, 0.65),
    ("RT4",          3, 26, 14.2, 1.20, 0.0, 0.10, 0, 0.5, 0.97, 0.05,  7.6, 1.15, 0.04, 0.14, 2.5, 0.85, 0.40, 0.40),
    ("SH-SY5Y",      3, 28, 10.4, 1.70, 0.1, 0.20, 3, 2.4, 0.45, 0.10,  6.4, 1.20, 0.04, 0.19, 2.5, 0.95, 0.15, 0.45),
    ("SiHa",         2, 16, 16.5, 1.40, 0.1, 0.16, 1, 0.5, 0.60, 0.05,  8.3, 1.20, 0.04, 0.16, 3.0, 0.85, 0.30, 0.60),
    ("SK-MEL-30",    2, 14, 17.1, 1.90, 0.2, 0.22, 2, 1.1, 0.30, 0.08,  8.3, 1.25, 0.04, 0.14, 3.5, 0.85, 0.22, 0.55),
    ("U-2 OS",      22, 11, 22.4, 1.45, 0.2, 0.24, 2, 0.6, 0.30, 0.08,  9.3, 1.25, 0.04, 0.14, 3.5, 0.92, 0.28, 0.85),
    ("U-251 MG",    14, 12, 20.6, 1.70, 0.2, 0.24, 2, 0.8, 0.20, 0.12,  8.7, 1.25, 0.06, 0.16, 4.0, 0.90, 0.22, 0.75),
)]
# fmt: on
