"""``python -m peftc`` is ``peftc``."""

import os
import subprocess
import sys

from ._program import find_program


def main() -> None:
    program = find_program()
    command = [program, *sys.argv[1:]]
    if sys.platform == "win32":
        sys.exit(subprocess.run(command).returncode)
    # The program takes this process' place, so that signals and the exit code are its own.
    os.execv(program, command)


if __name__ == "__main__":
    main()
