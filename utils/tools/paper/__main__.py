"""Set a paper's numbers beside those of runs trained by its recipes.

    python -m utils.tools.paper chen --needs
    python -m utils.tools.paper chen --runs runs/paper_chen
    python -m utils.tools.paper gapnet_pl --runs runs/paper_gapnet_pl \\
        --human human.csv

bash run.sh paper NAME trains these runs and makes the page. The page,
index.html, has every number that the paper prints, ours, their difference, and
where the setting differs; the figures and numbers.csv lie beside it. --human
is a person's Id,Target for some of the test images. --needs prints the data,
disk, GPU memory and hours that the paper takes, and does nothing else.
"""

from pathlib import Path

from utils.cli import option_parser, run_script
from utils.files import check_writable
from utils.tools.paper import needs, page, results_chen, results_gapnet_pl, results_posters
from utils.tools.paper.published import PAPERS
from utils.tools.paper.trained import find_runs

MEASURE = {
    "chen": results_chen.measure,
    "gapnet_pl": results_gapnet_pl.measure,
    "mylavarapu": results_posters.measure_mylavarapu,
    "poster": results_posters.measure_poster,
}


def main():
    parser = option_parser(__doc__, "utils.tools.paper")
    arg = parser.add_argument
    arg("paper", choices=PAPERS, help=", ".join(PAPERS))
    arg("--runs", metavar="FOLDER", help="folder of the paper's runs (default: runs/paper_<paper>)")
    arg("--human", metavar="CSV", help="Id,Target: a person's labels of some test images")
    arg("-o", "--out", metavar="FOLDER", help="where to write (default: page/ in the folder of the runs)")
    arg("--needs", action="store_true", help="print what the paper takes, and end")
    args = parser.parse_args()
    if args.needs:
        needs.print_needs(args.paper)
        return
    folder = Path(args.runs or f"runs/paper_{args.paper}")
    out = Path(args.out or folder / "page")
    for name in ("index.html", "numbers.csv"):
        check_writable(out / name)
    paper = PAPERS[args.paper]
    runs = find_runs(folder, paper)
    results = MEASURE[args.paper](runs, args.human, out)
    found = page.lines(paper, runs, results)
    page.write_numbers(out / "numbers.csv", found)
    page.write_page(out / "index.html", paper, runs, results, found)
    print(f"{sum(line.ours is not None for line in found)} of {len(found)} numbers measured -> {out / 'index.html'}")


if __name__ == "__main__":
    run_script(main)
