"""Write every page, and part of a page, that is made from a table or by counting."""

from tools import (
    claims,
    notation,
    performance,
    questions,
    reproductions,
    verified,
)


def main() -> None:
    for tool in (claims, questions, notation, performance, reproductions, verified):
        tool.main()


if __name__ == "__main__":
    main()
