"""`python -m reelmill`, and `torchrun -m reelmill`."""

from reelmill.entry import main

if __name__ == "__main__":
    main()
