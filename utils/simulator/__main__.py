from utils.cli import run_script
from utils.simulator.write import main

if __name__ == "__main__":
    run_script(main)
