for arg in sys.argv[1:]:  # noqa: F821
    assert arg.startswith("--"), arg
    key, val = arg[2:].split("=")
    if key not in globals():
        raise ValueError(f"Unknown config key: {key}")
    globals()[key] = type(globals()[key])(val)
