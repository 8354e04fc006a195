"""Executes a notebook from start to end with nbclient, as a scheduler would: `run_notebook.py NOTEBOOK OUTPUT`.

Runs in the current directory, prints each cell's text output, and writes the executed notebook to OUTPUT. Exit code 0 when every
cell ran, 1 when one raised; the error is the last thing printed.
"""

import pathlib
import sys

import nbformat
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

# Long enough for a cold start of the kernel on a loaded machine, in seconds.
CELL_TIMEOUT = 60


def main(notebook_path: str, output_path: str) -> int:
    notebook = nbformat.read(notebook_path, as_version=4)
    # Sockets in the runtime directory instead of TCP ports: what the pilot itself connects to is then all there is to see.
    manager = AsyncKernelManager(kernel_name="python3", transport="ipc")
    client = NotebookClient(notebook, km=manager, timeout=CELL_TIMEOUT)
    try:
        client.execute()
        return 0
    except CellExecutionError as error:
        print(error, file=sys.stderr)
        return 1
    finally:
        for cell in notebook.cells:
            for output in cell.get("outputs", []):
                text = output.get("text") or output.get("data", {}).get("text/plain", "")
                for line in text.splitlines():
                    print(f"  [{cell.get('execution_count')}] {line}")
        nbformat.write(notebook, pathlib.Path(output_path))


if __name__ == "__main__":
    if len(sys.argv) != 3:
        print(__doc__, file=sys.stderr)
        sys.exit(64)
    sys.exit(main(sys.argv[1], sys.argv[2]))
