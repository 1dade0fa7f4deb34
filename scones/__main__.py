"""``scones`` and ``python -m scones``: what the console script calls. It imports nothing, so that Ctrl-C is met from the first moment on."""


def main() -> None:
    """Run the command line; interrupted before it is even loaded, end as it does."""
    try:
        from scones.cli import main as run

        run()
    except KeyboardInterrupt:
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()
