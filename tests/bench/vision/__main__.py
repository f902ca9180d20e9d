"""`python -m tests.bench.vision`."""

from tests.bench.vision.run import main

if __name__ == "__main__":
    main()
