"""``python -m daram``: the terminal."""

from daram.cli import main

if __name__ == "__main__":
    main()
