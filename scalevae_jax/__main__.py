"""The commands of the package, a line each."""

import ast
import pathlib

HERE = pathlib.Path(__file__).parent


def main() -> None:
    """Print the name of each command, and the first line of its `--help`."""
    for path in [*sorted(HERE.glob("*.py")), *sorted(HERE.glob("*/__main__.py"))]:
        text = path.read_text(encoding="utf-8")
        if "\nmain = " in text:  # read, not imported: this takes no time
            name = path.parent.name if path.stem == "__main__" else path.stem
            about = (ast.get_docstring(ast.parse(text)) or "").splitlines()[0]
            print(f"python -m scalevae_jax.{name:<12} {about}")
    print("each has --help; in Python: scalevae_jax.fit, load and compare_runs")


if __name__ == "__main__":
    main()
