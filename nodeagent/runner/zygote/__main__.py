"""`nodeagent.runner.zygote` as a program."""

from nodeagent.runner.zygote.main import main

if __name__ == "__main__":
    main()
