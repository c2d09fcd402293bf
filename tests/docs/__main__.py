"""``make docs``: write the pages of docs/ that are made from the program."""

from tests.docs import commands, configuration, firewall


def main() -> None:
    """Write docs/configuration.md, docs/cli.md, and the tables of docs/firewall.md."""
    configuration.PAGE.write_text(configuration.page(), "utf-8")
    commands.PAGE.write_text(commands.page(), "utf-8")
    firewall.PAGE.write_text(firewall.page(), "utf-8")


if __name__ == "__main__":
    main()
