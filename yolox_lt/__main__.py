"""python -m yolox_lt: the same as the program yolox-lt."""

from yolox_lt.commands import main

if __name__ == "__main__":  # spawned ranks import this file again
    main()
