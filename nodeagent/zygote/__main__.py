"""`nodeagent.zygote` as a program."""

from nodeagent.zygote.main import main

if __name__ == "__main__":
    main()
